package cli

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"provost.dev/provost/client"
)

// aStory fills the log with an admission, a refusal and the start of a workload.
func aStory(t *testing.T) (f *fakeServer, ids []string) {
	t.Helper()
	f = newFake(t)
	for _, e := range [][2]string{{"policy.evaluate", "accepted"}, {"execution.refuse", "refused"}, {"workload.envelope.start", "accepted"}} {
		ids = append(ids, f.log.add(e[0], e[1]))
	}
	f.signIn(t, "auditor@demo")
	return f, ids
}

func TestEventsProofIsCheckedHere(t *testing.T) {
	isolate(t)
	f, ids := aStory(t)
	r := must(t, "events", "proof", ids[1])
	for _, want := range []string{"proof      verified", "log        provost/demo", "tree size  3", "key from   pinned at sign-in"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("printed %s, want %q in it", r.out, want)
		}
	}
	f.log.tamper = func(_ string, e []byte) []byte {
		return bytes.Replace(e, []byte(`"outcome":"refused"`), []byte(`"outcome":"accepted"`), 1)
	}
	r = run(t, "events", "proof", ids[1], "-o", "json")
	if r.code != exitUnverified || !strings.Contains(r.out, `"verified": false`) || !strings.Contains(r.err, "one of the two was changed") {
		t.Errorf("a changed event: %+v", r)
	}
	f.log.tamper = func(_ string, e []byte) []byte { return f.log.events[0] }
	if r := run(t, "events", "proof", ids[1]); r.code != exitUnverified || !strings.Contains(r.err, "asked for event") {
		t.Errorf("another event: %+v", r)
	}
	f.log.tamper = nil

	other := newFakeLog(t).key
	if r := run(t, "events", "proof", ids[1], "--key", other); r.code != exitUnverified || !strings.Contains(r.err, "is not signed by") {
		t.Errorf("another key: %+v", r)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(f.log.key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := must(t, "events", "proof", ids[1], "--key", file); !strings.Contains(r.out, "key from   given") {
		t.Errorf("a key in a file: %s", r.out)
	}
	if r := run(t, "events", "proof", ids[1], "--key", "nonsense"); r.code != exitNotFound {
		t.Errorf("a key that is neither: %+v", r)
	}
	if r := run(t, "events", "proof", "nobody"); r.code != exitNotFound {
		t.Errorf("no such event: %+v", r)
	}
}

func TestKeyOfFirstUse(t *testing.T) {
	path := isolate(t)
	f, ids := aStory(t)
	if err := changeContexts(path, func(c *contexts) error { c.Contexts["auditor@demo"].LogKey = ""; return nil }); err != nil {
		t.Fatal(err)
	}
	if r := must(t, "events", "proof", ids[1]); !strings.Contains(r.out, "key from   from the server, not pinned") || !strings.Contains(r.out, f.log.key) {
		t.Errorf("%s", r.out)
	}
	f.on("GET /v1/why", 200, whyTree(ids))
	must(t, "why", "workload/w1")
	v := &prover{s: &session{tenant: "demo"}, key: "pinned"}
	if got := v.trusted("demo", client.Proof{LogKey: "a"}); got != "pinned" {
		t.Errorf("the server's key %s replaced the pinned one", got)
	}
	v.key = ""
	for _, tenant := range []string{"demo", "acme"} { // the own log's, and another's with an event we caused
		first, second := v.trusted(tenant, client.Proof{LogKey: "a-" + tenant}), v.trusted(tenant, client.Proof{LogKey: "b"})
		if first != "a-"+tenant || second != first {
			t.Errorf("%s: the server's keys %s and %s were both taken", tenant, first, second)
		}
	}
}

func TestServerThatChangesItsKeyIsFoundOut(t *testing.T) {
	isolate(t)
	f, ids := aStory(t)
	f.log = newFakeLog(t)
	for range ids {
		f.log.add("policy.evaluate", "accepted")
	}
	if r := run(t, "events", "proof", ids[0]); r.code != exitUnverified {
		t.Errorf("%+v", r)
	}
}

// whyTree is an explanation whose nodes are the story's events.
func whyTree(ids []string) string {
	return fmt.Sprintf(`{"title":"workload w1","detail":"running","children":[
		{"title":"admitted","event_id":%q,"sequence":1,"outcome":"accepted","rule":"workload.allow","children":[{"title":"signed by key ci"}]},
		{"title":"refused before","event_id":%q,"sequence":2,"outcome":"refused","rule":"image.signature_missing"},
		{"title":"started","event_id":%q,"sequence":3,"outcome":"accepted"}]}`, ids[0], ids[1], ids[2])
}

func TestWhyProvesEachLine(t *testing.T) {
	isolate(t)
	f, ids := aStory(t)
	f.on("GET /v1/why", 200, whyTree(ids))
	f.seen()
	r := must(t, "why", "workload/w1")
	want := `· workload w1: running
├─ ✓ admitted  rule workload.allow  #1 event/` + ids[0] + `
│  └─ · signed by key ci
├─ ✓ refused before refused  rule image.signature_missing  #2 event/` + ids[1] + `
└─ ✓ started  #3 event/` + ids[2] + "\n"
	if r.out != want {
		t.Errorf("printed\n%s\nwant\n%s", r.out, want)
	}
	if !strings.Contains(r.err, "3 of 3 events proved against the log's key (pinned at sign-in)") {
		t.Errorf("said %s", r.err)
	}
	if q := f.seen(); q[0].line != "GET /v1/why?subject=workload%2Fw1" {
		t.Errorf("asked %s", q[0].line)
	}

	f.log.tamper = func(id string, e []byte) []byte {
		if id == ids[2] {
			return bytes.Replace(e, []byte("w1"), []byte("w2"), 1)
		}
		return e
	}
	r = run(t, "why", "workload/w1")
	if r.code != exitUnverified || !strings.Contains(r.out, "└─ ✗ started") || !strings.Contains(r.out, "├─ ✓ admitted") || !strings.Contains(r.err, "2 of 3 events") {
		t.Errorf("a changed event: %+v", r)
	}
	var tree struct {
		Children []struct {
			Verified *bool
			Fault    string
		}
	}
	r = run(t, "why", "workload/w1", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &tree); err != nil || r.code != exitUnverified {
		t.Fatalf("%v: %+v", err, r)
	}
	if c := tree.Children; len(c) != 3 || !*c[0].Verified || *c[2].Verified || c[2].Fault == "" {
		t.Errorf("json: %s", r.out)
	}
}

func TestWhyOfARefusalOneMayNotExplain(t *testing.T) {
	isolate(t)
	f, ids := aStory(t)
	f.on("GET /v1/why", 403, `{"code":"ECS_REFUSED","message":"it needs permission events.read","rule_id":"default.deny"}`)
	r := must(t, "why", "event/"+ids[1])
	want := "✓ execution.refuse refused: workload.create by developer@demo at 2026-01-02T03:04:02Z: no trusted key has signed it  rule image.signature_missing  #2 event/" + ids[1] + "\n"
	if r.out != want || !strings.Contains(r.err, "you may read this event") {
		t.Errorf("printed %q, said %q", r.out, r.err)
	}
	for _, subject := range []string{"event/nobody", "workload/w1"} {
		if r := run(t, "why", subject); r.code != exitDenied || !strings.Contains(r.err, "events.read") {
			t.Errorf("%s: %+v", subject, r)
		}
	}
}

func TestWhyDoesNotBelieveLabels(t *testing.T) {
	isolate(t)
	f, ids := aStory(t)
	for from, to := range map[string]string{`"outcome":"refused"`: `"outcome":"accepted"`, `"sequence":2`: `"sequence":7`,
		`"sequence":3,`: `"sequence":3,"pointer":"` + fakePointer + `",`, ids[2]: fakeEvent} {
		f.on("GET /v1/why", 200, strings.Replace(whyTree(ids), from, to, 1))
		if r := run(t, "why", "workload/w1"); r.code != exitUnverified {
			t.Errorf("%s for %s: %+v", to, from, r)
		}
	}
}

func TestWhySubjects(t *testing.T) {
	isolate(t)
	f, _ := aStory(t)
	f.on("GET /v1/why", 200, `{"title":"nothing"}`)
	for args, want := range map[string]string{"why image sha256:ab": "image%2Fsha256%3Aab", "why sha256:ab": "image%2Fsha256%3Aab", "why image/sha256:ab": "image%2Fsha256%3Aab",
		"image why sha256:ab": "image%2Fsha256%3Aab", "why event/e": "event%2Fe", "why tenant/demo": "tenant%2Fdemo", "why tenant demo": "tenant%2Fdemo"} {
		f.seen()
		must(t, strings.Fields(args)...)
		if q := f.seen(); q[0].line != "GET /v1/why?subject="+want {
			t.Errorf("%s asked %s", args, q[0].line)
		}
	}
}

func TestExplanationsAreBounded(t *testing.T) {
	isolate(t)
	f, _ := aStory(t)
	f.on("GET /v1/why", 200, strings.Repeat(`{"children":[`, maxNesting+2)+strings.Repeat(`]}`, maxNesting+2))
	deep := run(t, "why", "tenant/demo")
	f.on("GET /v1/why", 200, `{"children":[`+strings.Repeat(`{},`, maxReasons)+`{}]}`)
	wide := run(t, "why", "tenant/demo")
	for _, r := range []result{deep, wide} {
		if r.code != exitFailed || !strings.Contains(r.err, "larger than this program takes") {
			t.Errorf("%.200v", r)
		}
	}
}

func TestExportThenVerify(t *testing.T) {
	isolate(t)
	f, ids := aStory(t)
	dir := t.TempDir()
	for _, name := range []string{"all.tar.gz", "all.zip"} {
		file := filepath.Join(dir, name)
		r := must(t, "export", "--profile", "baseline", "--out", file, "--from", "2026-01-01")
		if !strings.Contains(r.out, "bundle hash  sha256:abc") || !strings.Contains(r.out, "sequences    1–3") || !strings.Contains(r.err, "provost verify "+file) {
			t.Errorf("%+v", r)
		}
		r = must(t, "verify", file, "--key", f.log.key)
		if !strings.Contains(r.out, "result       verified") || !strings.Contains(r.out, "trust        a key you gave") {
			t.Errorf("%s: %s%s", name, r.out, r.err)
		}
		if r := run(t, "verify", file, "--key", newFakeLog(t).key); r.code != exitUnverified {
			t.Errorf("%s with another key: %+v", name, r)
		}
	}
	f.on("GET /v1/why", 200, whyTree(ids))
	file := filepath.Join(dir, "case.tar.gz")
	if r := must(t, "why", "workload/w1", "--bundle", file); !strings.Contains(r.err, "3 events are in "+file) {
		t.Errorf("%+v", r)
	}
	must(t, "verify", file)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
	if r := must(t, "export", "--profile", "baseline", "--out", "-"); !strings.HasPrefix(r.out, "\x1f\x8b") || !strings.Contains(r.err, "bundle hash") {
		t.Errorf("to standard output: %d bytes, said %s", len(r.out), r.err)
	}
}

func TestFailedExportLeavesNoFile(t *testing.T) {
	isolate(t)
	f, _ := aStory(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "x.tar.gz")
	f.on("GET /v1/exports/x1/bundle", http.StatusConflict, `{"code":"ECS_NOT_READY","message":"not ready"}`)
	if r := run(t, "export", "--profile", "baseline", "--out", out); r.code != exitConflict {
		t.Errorf("%+v", r)
	}
	f.on("GET /v1/exports/x1", 200, `{"export_id":"x1","status":"failed","reason":"disk full"}`)
	if r := run(t, "export", "--profile", "baseline", "--out", out); r.code != exitFailed || !strings.Contains(r.err, "disk full") {
		t.Errorf("%+v", r)
	}
	f.on("GET /v1/exports/x1", 200, `{"export_id":"x1","status":"pending"}`)
	if r := run(t, "export", "--profile", "baseline", "--out", out, "--timeout", "1ms"); r.code != exitTryAgain {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
}

// TestVerifyNamesAFlippedByte flips a byte in each file of a bundle, and at
// places of the archive itself.
func TestVerifyNamesAFlippedByte(t *testing.T) {
	isolate(t)
	f, _ := aStory(t)
	f.log.mu.Lock()
	archive := f.log.archive("zip", nil)
	f.log.mu.Unlock()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, z); err != nil {
		t.Fatal(err)
	}
	must(t, "verify", dir)
	for _, file := range z.File {
		path := filepath.Join(dir, filepath.FromSlash(file.Name))
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := run(t, "verify", dir); r.code != exitUnverified || !strings.Contains(r.err, file.Name) {
			t.Errorf("flip in %s: exit %d: %s", file.Name, r.code, r.err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "flipped.zip")
	for _, at := range []int{0, len(archive) / 3, len(archive) / 2, len(archive) - 20} {
		bad := bytes.Clone(archive)
		bad[at] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := run(t, "verify", path); r.code != exitUnverified {
			t.Errorf("flip at byte %d of the archive: exit %d: %s", at, r.code, r.err)
		}
	}
}

func TestVerifyOfWhatIsNoBundle(t *testing.T) {
	isolate(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	if err := errors.Join(os.WriteFile(text, []byte("hello"), 0o600), os.Mkdir(filepath.Join(dir, "empty"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for args, code := range map[string]int{"missing.tar.gz": exitNotFound, text: exitUnverified, filepath.Join(dir, "empty"): exitUnverified,
		filepath.Join(dir, "empty") + " --key a+b+c": exitUsage} {
		if r := run(t, append([]string{"verify"}, strings.Fields(args)...)...); r.code != code {
			t.Errorf("verify %s: exit %d, want %d: %s", args, r.code, code, r.err)
		}
	}
}

func TestVerifyForeignBundle(t *testing.T) {
	isolate(t)
	const dir = "../kernel/evidence/bundle/testdata/foreign/baseline"
	r := run(t, "verify", dir, "-o", "json")
	var report struct {
		OK      bool `json:"ok"`
		Foreign bool `json:"foreign"`
	}
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || r.code != exitOK || !report.OK || !report.Foreign {
		t.Errorf("%v: exit %d %s %s", err, r.code, r.out, r.err)
	}
	if r := run(t, "verify", dir, "--strict"); r.code != exitUnverified {
		t.Errorf("strictly: exit %d", r.code)
	}
}

func TestFollowPrintsEventsAsTheyCome(t *testing.T) {
	isolate(t)
	_, ids := aStory(t)
	r := run(t, "events", "follow", "--outcome", "refused", "-o", "json")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if len(lines) != 3 || r.code != exitFailed || !strings.Contains(r.err, "your rights are gone") {
		t.Fatalf("%+v", r)
	}
	for i, line := range lines {
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.ID != ids[i] {
			t.Errorf("line %d is %s, %v", i, line, err)
		}
	}
	if r := run(t, "events", "follow"); !strings.HasPrefix(r.out, "SEQ ") || strings.Count(r.out, "\n") != 4 {
		t.Errorf("table:\n%s", r.out)
	}
	if r := run(t, "events", "follow", "-o", "yaml"); strings.Count(r.out, "---\n") != 3 {
		t.Errorf("yaml:\n%s", r.out)
	}
}
