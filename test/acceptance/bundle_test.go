package acceptance

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	baseline    = "ecs-evidence-baseline"
	admissible  = "ecs-evidence-admissible"
	noControl   = "ecs-evidence-ncp"
	regulatedML = "ecs-evidence-regulated-ml"
)

var profiles = []string{baseline, admissible, noControl, regulatedML}

// files is a bundle, unpacked: name → bytes.
type files map[string][]byte

// export asks for a bundle, waits for it, and returns the finished export and
// its archive.
func (c *client) export(t testing.TB, request object, format string) (x object, archive []byte) {
	t.Helper()
	a := c.post(t, "/v1/exports", request).want(202)
	path := "/v1/exports/" + a.text("export_id")
	if a.header.Get("Location") != path || a.text("status") != "pending" {
		t.Errorf("Location %q, status %q", a.header.Get("Location"), a.text("status"))
	}
	eventually(t, "the export", func() bool {
		x = c.get(t, path).want(200).json()
		return x["status"] != "pending"
	})
	if x["status"] != "ready" {
		t.Fatalf("the export is %v: %v", x["status"], x["reason"])
	}
	return x, c.get(t, path+"/bundle?format="+format).want(200).body
}

// bundleOf exports a tenant's whole log under a profile.
func bundleOf(t testing.TB, c *client, profile string) files {
	t.Helper()
	_, archive := c.export(t, object{"evidence_profile_id": profile}, "tar.gz")
	return untar(t, archive)
}

func untar(t testing.TB, archive []byte) files {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	out := files{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if out[path.Clean(h.Name)], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func unzip(t testing.TB, archive []byte) files {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	out := files{}
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if out[path.Clean(f.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	return out
}

// document is one of the bundle's JSON files.
func (f files) document(t testing.TB, name string) object {
	t.Helper()
	o, _ := parseNumbers(t, f[name]).(object)
	if o == nil {
		t.Fatalf("%s is no JSON object", name)
	}
	return o
}

// lines are events.jsonl's, without their ends.
func (f files) lines(t testing.TB) [][]byte {
	t.Helper()
	b := f["events.jsonl"]
	if len(b) == 0 || b[len(b)-1] != '\n' || bytes.Contains(b, []byte("\r")) {
		t.Fatal("events.jsonl is empty or does not end in one line feed")
	}
	return bytes.Split(b[:len(b)-1], []byte("\n"))
}

func (f files) events(t testing.TB) (out []object) {
	t.Helper()
	for _, l := range f.lines(t) {
		out = append(out, parseNumbers(t, l).(object))
	}
	return out
}

// storied is a tenant with admissions, refusals and artifacts in its log.
func storied(t testing.TB) *tenant {
	t.Helper()
	tn := shared.newTenant(t)
	furnish(t, tn)
	refusals(t, tn)
	tn.op.ask(t, "Zürich 😀 <&>")
	return tn
}

// smoke is the reference runtime smoke test (R1 to R8), as far as the digest
// tells it: the required files, one profile and one chain in all of them, hashes
// on every event, continuity from genesis on, a refusal with its reason,
// pointers of the right form, and a scope that is what is inside.
func smoke(t testing.TB, f files) {
	t.Helper()
	for _, name := range []string{"manifest.json", "events.jsonl", "chain-segment.json", "verifier-inputs.json", "profile-claim.json"} { // R1
		if len(f[name]) == 0 {
			t.Fatalf("R1: no %s", name)
		}
	}
	manifest, inputs, claim, segment := f.document(t, "manifest.json"), f.document(t, "verifier-inputs.json"), f.document(t, "profile-claim.json"), f.document(t, "chain-segment.json")
	for _, o := range []object{inputs, claim, segment} { // R2
		if o["evidence_profile_id"] != manifest["evidence_profile_id"] {
			t.Errorf("R2: profile %v, the manifest's is %v", o["evidence_profile_id"], manifest["evidence_profile_id"])
		}
	}
	events := f.events(t)
	refused, before := 0, any(nil)
	low, high := number(t, events[0]["sequence"]), int64(0)
	pointer := regexp.MustCompile(`^eosc://(evidence|artifact)/`)
	for i, e := range events {
		if e["chain_id"] != manifest["chain_id"] || !isText(e["event_hash"]) { // R3
			t.Errorf("R3: event %d: chain_id %v, event_hash %v", i, e["chain_id"], e["event_hash"])
		}
		if i == 0 && e["prev_hash"] != nil || i > 0 && e["prev_hash"] != before { // R4
			t.Errorf("R4: event %d: prev_hash %v, the event before has %v", i, e["prev_hash"], before)
		}
		before = e["event_hash"]
		if e["outcome"] == "refused" { // R5
			refused++
			if !isText(e["refusal_reason"]) {
				t.Errorf("R5: event %d is refused without refusal_reason", i)
			}
		}
		if p, _ := e["evidence_pointer"].(string); !pointer.MatchString(p) { // R6
			t.Errorf("R6: event %d: evidence_pointer %q", i, p)
		}
		low, high = min(low, number(t, e["sequence"])), max(high, number(t, e["sequence"]))
	}
	if refused == 0 {
		t.Error("R5: nothing is refused")
	}
	if number(t, dig(manifest, "scope.from_sequence")) != low || number(t, dig(manifest, "scope.to_sequence")) != high { // R7
		t.Errorf("R7: scope %v, events %d to %d", manifest["scope"], low, high)
	}
	if manifest["evidence_profile_id"] == regulatedML && manifest["hash_profile_id"] != "ecs-hash-v1" { // R8
		t.Errorf("R8: hash_profile_id %v", manifest["hash_profile_id"])
	}
}

func TestBUN01Smoke(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	for _, profile := range profiles {
		_, archive := tn.op.export(t, object{"evidence_profile_id": profile}, "tar.gz")
		smoke(t, untar(t, archive))
	}
}

func TestBUN02ScopeIsClamped(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	size := int64(len(tn.op.events(t, "")))
	x, archive := tn.op.export(t, object{"evidence_profile_id": baseline, "from_sequence": 1, "to_sequence": 1_000_000}, "tar.gz")
	f := untar(t, archive)
	smoke(t, f)
	if to := number(t, dig(x, "scope.to_sequence")); to < size || to > size+5 {
		t.Errorf("the export's scope ends at %d of %d", to, size)
	}
	// A range inside: no genesis, and the hash before it is told (ecs.md X3).
	_, archive = tn.op.export(t, object{"evidence_profile_id": admissible, "from_sequence": 5, "to_sequence": 9}, "tar.gz")
	f = untar(t, archive)
	recompute(t, f)
	events, all := f.events(t), tn.op.events(t, "to_sequence=9")
	if len(events) != 5 || f.document(t, "verifier-inputs.json")["prior_event_hash"] != all[3]["event_hash"] {
		t.Errorf("%d events; prior_event_hash %v, want %v", len(events), f.document(t, "verifier-inputs.json")["prior_event_hash"], all[3]["event_hash"])
	}
	for _, bad := range []object{{"from_sequence": 9, "to_sequence": 5}, {"from_sequence": -1}, {"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}} {
		tn.op.post(t, "/v1/exports", with(bad, "evidence_profile_id", baseline)).refused(tn.op, 400)
	}
}

// An export by time and by correlation holds what the list by the same conditions shows.
func TestExportSelections(t *testing.T) {
	t.Parallel()
	tn, correlation := storied(t), unique("story")
	for range 3 {
		tn.op.ask(t, "x", "X-Correlation-ID", correlation)
		tn.op.ask(t, "y")
	}
	all := tn.op.events(t, "")
	from := all[3]["occurred_at"].(string)
	for query, request := range map[string]object{
		"correlation_id=" + correlation:    {"correlation_id": correlation},
		"from=" + from + "&to_sequence=12": {"from": from, "to_sequence": 12},
	} {
		want := tn.op.events(t, query)
		_, archive := tn.op.export(t, with(request, "evidence_profile_id", baseline), "tar.gz")
		got := untar(t, archive).events(t)
		if !slices.EqualFunc(got, want, func(a, b object) bool { return a["id"] == b["id"] }) || len(want) == 0 {
			t.Errorf("%s: %d events exported, %d listed", query, len(got), len(want))
		}
		verified(t, archive, 0)
	}
}

func TestBUN03Manifest(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	for _, profile := range profiles {
		f := bundleOf(t, tn.op, profile)
		manifest := f.document(t, "manifest.json")
		for field, want := range (object{"schema_version": "1.0", "profile_version": "1.0", "tenant_id": tn.id, "evidence_profile_id": profile,
			"verifier_expectations_ref": "docs/evidence/verifier-responsibilities.md"}) {
			if manifest[field] != want {
				t.Errorf("%s: %s is %v, want %v", profile, field, manifest[field], want)
			}
		}
		for _, field := range []string{"export_id", "created_at", "provider_id", "chain_id", "chain_segment_ref", "bundle_hash"} {
			if !isText(manifest[field]) {
				t.Errorf("%s: %s is %v", profile, field, manifest[field])
			}
		}
		for _, field := range []string{"producer_identity.issuer_id", "producer_identity.producer_id"} {
			if !isText(dig(manifest, field)) {
				t.Errorf("%s: %s is %v", profile, field, dig(manifest, field))
			}
		}
		for _, name := range []string{"verifier-inputs.json", "profile-claim.json"} {
			o := f.document(t, name)
			if o["evidence_profile_id"] != profile || o["profile_version"] != "1.0" || o["verifier_expectations_ref"] != manifest["verifier_expectations_ref"] ||
				!maps.Equal(o["producer_identity"].(object), manifest["producer_identity"].(object)) {
				t.Errorf("%s: %s does not say what the manifest says: %s", profile, name, f[name])
			}
		}
		if got := f.document(t, "chain-segment.json")["evidence_profile_id"]; got != profile {
			t.Errorf("chain-segment.json is of profile %v", got)
		}
		implements, _ := f.document(t, "profile-claim.json")["implements"].(object)
		for _, list := range []string{"evidence_profiles", "hash_profiles", "export_endpoints", "verifier_inputs_supported"} {
			if l, _ := implements[list].([]any); len(l) == 0 {
				t.Errorf("%s: the claim's %s are %v", profile, list, implements[list])
			}
		}
	}
}

func TestBUN04Recompute(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	for _, profile := range profiles {
		recompute(t, bundleOf(t, tn.op, profile))
	}
}

// recompute computes every hash of a bundle from the bytes of its files (ecs.md §5.2–5.4).
func recompute(t testing.TB, f files) {
	t.Helper()
	manifest, inputs, segment := f.document(t, "manifest.json"), f.document(t, "verifier-inputs.json"), f.document(t, "chain-segment.json")
	for k, want := range map[string]string{"event_hash_method": "sha256(canonical_json(event) without event_hash)",
		"segment_hash_method": "sha256(newline-joined event_hash values)", "bundle_hash_method": "sha256(newline-joined event_hash values)"} {
		if inputs[k] != want {
			t.Errorf("%s is %v", k, inputs[k])
		}
	}
	lines, events := f.lines(t), f.events(t)
	checkChain(t, events)
	entries, _ := segment["events"].([]any)
	if len(entries) != len(events) {
		t.Fatalf("%d entries in the segment, %d events", len(entries), len(events))
	}
	var hashes []string
	for i, e := range events {
		if got := canonical(t, e); !bytes.Equal(got, lines[i]) {
			t.Errorf("line %d of events.jsonl is not canonical", i+1)
		}
		entry := entries[i].(object)
		for field, of := range map[string]string{"id": "id", "sequence": "sequence", "event_hash": "event_hash", "event_ref": "evidence_pointer", "prev_hash": "prev_hash"} {
			if entry[field] != e[of] {
				t.Errorf("event %v: the segment's %s is %v, the event's %s %v", e["sequence"], field, entry[field], of, e[of])
			}
		}
		hashes = append(hashes, e["event_hash"].(string))
	}
	joined := digestOf([]byte(strings.Join(hashes, "\n")))
	if segment["segment_hash"] != joined || manifest["bundle_hash"] != joined {
		t.Errorf("segment_hash %v, bundle_hash %v, computed %s", segment["segment_hash"], manifest["bundle_hash"], joined)
	}
	ref := "eosc://evidence/chain/" + digestOf(f["chain-segment.json"])
	if manifest["chain_segment_ref"] != ref || inputs["chain_segment_ref"] != ref {
		t.Errorf("chain_segment_ref %v and %v, computed %s", manifest["chain_segment_ref"], inputs["chain_segment_ref"], ref)
	}
	for _, o := range []object{inputs, segment, manifest["scope"].(object)} {
		if o["from_sequence"] != events[0]["sequence"] || o["to_sequence"] != events[len(events)-1]["sequence"] {
			t.Errorf("sequences %v to %v, events %v to %v", o["from_sequence"], o["to_sequence"], events[0]["sequence"], events[len(events)-1]["sequence"])
		}
	}
}

func TestBUN05ArtifactsResolveInside(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	for _, profile := range profiles {
		f := bundleOf(t, tn.op, profile)
		inside := map[string]bool{}
		for name, b := range f {
			if strings.HasPrefix(name, "artifacts/") {
				inside[sum(b)] = true
			}
		}
		listed := map[string]bool{}
		refs := 0
		check := func(where string, pointer any) string {
			s, _ := pointer.(string)
			digest := s[strings.LastIndex(s, ":")+1:]
			if refs++; !inside[digest] {
				t.Errorf("%s: %s: %v is not inside", profile, where, pointer)
			}
			return digest
		}
		for kind, list := range f.document(t, "manifest.json")["artifacts"].(object) {
			for _, pointer := range list.([]any) {
				listed[check("manifest "+kind, pointer)] = true
			}
		}
		for _, e := range f.events(t) {
			where := fmt.Sprintf("event %v", e["sequence"])
			pointers := []any{e["evidence_pointer"], e["policy_snapshot_id"], e["authority_snapshot_id"]}
			more, _ := e["artifact_refs"].([]any)
			for _, p := range append(pointers, more...) {
				if digest := check(where, p); !listed[digest] {
					t.Errorf("%s: %v is not in manifest.artifacts", where, p)
				}
			}
		}
		if refs < 50 || len(listed) != len(inside) {
			t.Errorf("%s: %d references, %d artifacts listed, %d inside", profile, refs, len(listed), len(inside))
		}
	}
}

// verified runs provost verify on an archive or a folder and returns what it says.
func verified(t testing.TB, bundle any, want int, args ...string) string {
	t.Helper()
	name, ok := bundle.(string)
	if !ok {
		name = filepath.Join(t.TempDir(), "bundle")
		if err := os.WriteFile(name, bundle.([]byte), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out := run(t, append([]string{"verify", name}, args...), "")
	if code != want {
		t.Errorf("provost verify ended with %d, want %d:\n%s", code, want, out)
	}
	return out
}

// run runs the command line and returns its exit code and all it said.
func run(t testing.TB, args []string, stdin string, env ...string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, provostBin, args...)
	cmd.Env, cmd.Stdin = append(environ(), env...), strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatalf("provost %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// write lays a bundle out as a folder.
func (f files) write(t testing.TB, dir string) {
	t.Helper()
	for name, b := range f {
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBUN06OneFlippedByte(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	_, archive := tn.op.export(t, object{"evidence_profile_id": admissible}, "tar.gz")
	verified(t, archive, 0)
	f, dir := untar(t, archive), t.TempDir()
	f.write(t, dir)
	verified(t, dir, 0)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 6))
	names := slices.Sorted(maps.Keys(f))
	for i := range 40 { // every document, then artifacts at random
		name := names[r.IntN(len(names))]
		if documents := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.HasPrefix(n, "artifacts/") }); i < 2*len(documents) {
			name = documents[i%len(documents)]
		}
		b := slices.Clone(f[name])
		at, bit := r.IntN(len(b)), byte(1)<<r.IntN(8)
		b[at] ^= bit
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := verified(t, dir, 6); !strings.Contains(out, path.Base(name)) {
			t.Errorf("seed %d: bit %#x of byte %d of %s was flipped; verify does not name the file:\n%s", seed, bit, at, name, out)
		}
		if err := os.WriteFile(filepath.Join(dir, name), f[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verified(t, dir, 0)
}

// A whole event replaced, dropped or moved, with every hash of the contract
// made to fit again: only the signatures and the log can tell.
func TestBUN06Forgery(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	f := bundleOf(t, tn.op, admissible)
	for name, forge := range map[string]func(files){
		"last event dropped": func(f files) {
			lines := bytes.SplitAfter(f["events.jsonl"], []byte("\n"))
			f["events.jsonl"] = bytes.Join(lines[:len(lines)-2], nil)
		},
		"two events exchanged": func(f files) {
			lines := bytes.SplitAfter(f["events.jsonl"], []byte("\n"))
			lines[3], lines[4] = lines[4], lines[3]
			f["events.jsonl"] = bytes.Join(lines, nil)
		},
		"a refusal accepted, hashes recomputed": func(f files) {
			events := f.events(t)
			var b bytes.Buffer
			prev := any(nil)
			for _, e := range events {
				if e["outcome"] == "refused" {
					e["outcome"] = "accepted"
				}
				if prev != nil {
					e["prev_hash"] = prev
				}
				e["event_hash"] = eventHash(t, e)
				prev = e["event_hash"]
				b.Write(append(canonical(t, e), '\n'))
			}
			f["events.jsonl"] = b.Bytes()
		},
		"an artifact missing": func(f files) {
			maps.DeleteFunc(f, func(n string, _ []byte) bool { return strings.HasPrefix(n, "artifacts/") })
		},
		"the list missing":     func(f files) { delete(f, "SHA256SUMS") },
		"the proof missing":    func(f files) { delete(f, "log-proof.json") },
		"a file added":         func(f files) { f["artifacts/notes.txt"] = []byte("trust me\n") },
		"the manifest missing": func(f files) { delete(f, "manifest.json") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forged, dir := maps.Clone(f), t.TempDir()
			forge(forged)
			forged.write(t, dir)
			verified(t, dir, 6)
		})
	}
}

func TestBUN07EventsAreThoseListed(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	lines := bundleOf(t, tn.op, baseline).lines(t)
	var page struct{ Items []json.RawMessage }
	if err := json.Unmarshal(tn.op.get(t, fmt.Sprint("/v1/events?limit=1000&to_sequence=", len(lines))).want(200).body, &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Items) != len(lines) {
		t.Fatalf("%d events listed, %d exported", len(page.Items), len(lines))
	}
	for i := range lines {
		if !bytes.Equal(page.Items[i], lines[i]) {
			t.Errorf("event %d: listed %s, exported %s", i+1, clip(page.Items[i]), clip(lines[i]))
		}
	}
}

func TestBUN08Profiles(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	for _, profile := range []any{"", "ecs-evidence-none", "ECS-EVIDENCE-BASELINE", nil, 7} {
		a := tn.op.post(t, "/v1/exports", object{"evidence_profile_id": profile})
		a.refused(tn.op, 400)
		if a.text("field") != "evidence_profile_id" {
			t.Errorf("%v: the error is of field %q", profile, a.text("field"))
		}
	}
	f := bundleOf(t, tn.op, admissible)
	for i, e := range f.events(t) {
		if !isText(e["chain_id"]) || !isText(e["event_hash"]) || i > 0 && !isText(e["prev_hash"]) {
			t.Errorf("event %v lacks chain fields", e["sequence"])
		}
	}
	if f.document(t, "manifest.json")["hash_profile_id"] != "ecs-hash-v1" {
		t.Errorf("hash_profile_id is %v", f.document(t, "manifest.json")["hash_profile_id"])
	}
}

func TestBUN09ExportLeavesEvidence(t *testing.T) {
	t.Parallel()
	tn := shared.newTenant(t)
	x, _ := tn.op.export(t, object{"evidence_profile_id": baseline}, "zip")
	found := tn.op.events(t, "event_type=evidence.export")
	if len(found) != 1 || found[0]["export_id"] != x["export_id"] || found[0]["outcome"] != "accepted" || found[0]["actor"] != "op@"+tn.id {
		t.Fatalf("evidence.export: %v", found)
	}
	finished := tn.op.events(t, "resource_id=export/"+x["export_id"].(string))
	if len(finished) != 2 || finished[1]["bundle_hash"] != x["bundle_hash"] {
		t.Errorf("the export's events: %v", finished)
	}
}

// TestBUN10NoControl: a no-control bundle carries the four proof artifacts, and each is what its hash says.
func TestBUN10NoControl(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	_, archive := tn.op.export(t, object{"evidence_profile_id": noControl}, "tar.gz")
	verified(t, archive, 0)
	f := untar(t, archive)
	inside := map[string]bool{}
	for _, b := range f {
		inside[digestOf(b)] = true
	}
	types := map[any]bool{}
	for _, e := range f.events(t) {
		if e["artifact_type"] == nil {
			continue
		}
		types[e["artifact_type"]] = true
		ref, _ := e["artifact_ref"].(string)
		hash, _ := e["artifact_hash"].(string)
		if !inside[hash] || !strings.HasSuffix(ref, hash) {
			t.Errorf("event %v: artifact %v with hash %v is not inside", e["sequence"], ref, hash)
		}
	}
	for _, typ := range []string{"authority_graph", "key_custody_model", "controlplane_ownership", "telemetry_egress_map"} {
		if !types[typ] {
			t.Errorf("there is no %s", typ)
		}
	}
}

// Both archives hold the same files.
func TestBundleFormats(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	x, archive := tn.op.export(t, object{"evidence_profile_id": baseline}, "zip")
	verified(t, archive, 0)
	zipped := unzip(t, archive)
	path := "/v1/exports/" + x["export_id"].(string) + "/bundle"
	tarred := untar(t, tn.op.get(t, path).want(200).body)
	if !maps.EqualFunc(zipped, tarred, bytes.Equal) {
		t.Errorf("the zip holds %v, the tar.gz %v", slices.Sorted(maps.Keys(zipped)), slices.Sorted(maps.Keys(tarred)))
	}
	part := tn.op.do(t, "GET", path+"?format=zip", nil, "Range", "bytes=4-9").want(206)
	if !bytes.Equal(part.body, archive[4:10]) {
		t.Error("a range of the bundle is not that range")
	}
	tn.op.get(t, path+"?format=rar").want(400)
}

// verify says it in JSON as well.
func TestVerifyReport(t *testing.T) {
	t.Parallel()
	tn := storied(t)
	_, archive := tn.op.export(t, object{"evidence_profile_id": admissible}, "tar.gz")
	out := verified(t, archive, 0, "-o", "json")
	var report object
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if steps, _ := report["steps"].([]any); len(steps) < 17 {
		t.Errorf("%d steps in the report: %s", len(steps), out)
	}
}
