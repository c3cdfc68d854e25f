package cli

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"provost.dev/provost/internal/kernel/evidence/canon"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The cast of the golden files: one of each resource, with what is awkward to
// print in it.
var (
	goldenTenant = `{"id":"demo","authority_binding":"auth-demo","jurisdiction":"DE","classification_ceiling":"restricted","policy_baseline":"policy-baseline",` +
		`"status":"active","owner":"Zürich <&> 😀","quotas":{"workloads":100,"cpu_millis":16000},"created_at":"2026-01-02T03:04:05.123456Z","updated_at":"2026-01-02T03:04:05Z"}`
	goldenWorkload = `{"id":"0190","tenant_id":"demo","name":"web","envelope_type":"container","image_ref":"demo/web@sha256:ab","image_digest":"sha256:ab","command":["/bin/web","-v"],` +
		`"env":{"B":"2","A":"no"},"resources":{"cpu_millis":500,"memory_bytes":67108864,"pids":64},"restart":"always","status":"failed","status_reason":"out of memory",` +
		`"exit_code":137,"placement":{"node":"local"},"created_at":"2026-01-02T03:04:05Z","young_field":1e2}`
	goldenImage = `{"repository":"demo/web","digest":"sha256:ab","tags":["v1","latest"],"size":1536,"pushed_at":"2026-01-02T03:04:05Z","signature":"verified","provenance":"verified","sbom":"missing",` +
		`"report":{"signature":{"status":"verified","proofs":[{"keys":[{"name":"ci"},{"name":"backup"}]}]},"provenance":{"status":"verified","proofs":[{"keys":[{"name":"ci"}],` +
		`"build":{"builder_id":"https://tekton.dev/chains"}}]},"sbom":{"status":"missing","proofs":[]},"findings":[{"kind":"sbom","reason":"missing","detail":"no SBOM"}]}}`
	goldenEvent = `{"actor":"developer@demo","correlation_id":"c1","event_hash":"sha256:02","event_type":"execution.refuse","evidence_pointer":"` + fakePointer + `","id":"e2",` +
		`"occurred_at":"2026-01-02T03:04:05.000001Z","outcome":"refused","payload":{"image":"\ud83d\ude00"},"refusal_reason":"nobody trusted has signed it",` +
		`"refusal_reason_class":"policy_denied","refusal_reason_code":"image.signature_missing","resource_id":"workload/0190","sequence":2,"tenant_id":"demo"}`
	goldenPolicy = `{"id":"rules","version":"2","cedar":"permit (principal, action, resource);\n","hash":"sha256:0123456789abcdef0123","status":"deprecated","created_at":"2026-01-02T03:04:05Z"}`
)

func page(items ...string) string { return `{"items":[` + strings.Join(items, ",") + `]}` }

// TestOutputIsStable compares what commands print with golden files. After a
// change that is meant: go test ./internal/cli -run Stable -update
func TestOutputIsStable(t *testing.T) {
	isolate(t)
	f := newFake(t)
	f.signIn(t, "operator@demo")
	for line, body := range map[string]string{
		"GET /v1/tenants": page(goldenTenant, `{"id":"rival","status":"suspended"}`), "GET /v1/tenants/demo": goldenTenant, "POST /v1/tenants": goldenTenant,
		"GET /v1/workloads": page(goldenWorkload, `{"id":"0191","status":"running"}`), "GET /v1/workloads/0190": goldenWorkload,
		"GET /v1/images": page(strings.Replace(goldenImage, `"report"`, `"note"`, 1)), "GET /v1/images/sha256:ab": goldenImage,
		"GET /v1/events": page(goldenEvent), "GET /v1/events/e2": goldenEvent,
		"GET /v1/policies": page(goldenPolicy), "GET /v1/policies/rules": goldenPolicy,
		"POST /v1/policies/test": `{"evaluated":120,"changed":[{"event_id":"e2","sequence":2,"action":"workload.create","principal":"developer@demo","resource":"Workload/web",` +
			`"old":"allow","new":"deny","rule":"no-latest"}]}`,
		"GET /v1/authorities":       page(`{"id":"auth-demo","revision":3,"issuer":"Demo board","subject":"demo","scope":["workload","tenant.update"],"valid_from":"2026-01-01T00:00:00Z","valid_to":"2027-01-01T00:00:00Z"}`),
		"GET /v1/trust-keys":        page(`{"name":"ci","uses":["signature","sbom"],"fingerprint":"sha256:0123456789abcdef","created_at":"2026-01-02T03:04:05Z"}`),
		"GET /v1/users":             page(`{"username":"ada","roles":["developer","auditor"],"permissions":[],"disabled":true}`),
		"GET /v1/roles":             page(),
		"GET /v1/service-accounts":  page(`{"client_id":"ci","role_id":"PLAN","permissions":["a","b"]}`),
		"POST /v1/service-accounts": `{"client_id":"ci","permissions":["workload.create"],"client_secret":"s3cret"}`,
		"POST /v1/decisions":        `{"decision":"deny","rules":["image.not_pinned"],"reason":"the image is not pinned","policy_snapshot_id":"sha256:01","authority_snapshot_id":"sha256:02","evidence_pointer":"` + fakePointer + `"}`,
	} {
		f.on(line, 200, body)
	}
	f.on("DELETE /v1/workloads/0190", 204, "")
	cedar := filepath.Join(t.TempDir(), "rules.cedar")
	if err := os.WriteFile(cedar, []byte("forbid (principal, action, resource);"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"tenant-list":            {"tenant", "list"},
		"tenant-get":             {"tenant", "get"},
		"tenant-create":          {"tenant", "create", "demo"},
		"workload-list":          {"workload", "list"},
		"workload-get":           {"workload", "get", "0190"},
		"workload-delete":        {"workload", "delete", "0190"},
		"image-list":             {"image", "list"},
		"image-get":              {"image", "get", "sha256:ab"},
		"image-tags":             {"image", "tags"},
		"events-list":            {"events", "list"},
		"events-get":             {"events", "get", "e2"},
		"policy-list":            {"policy", "list"},
		"policy-get":             {"policy", "get", "rules"},
		"policy-test":            {"policy", "test", cedar},
		"authority-list":         {"authority", "list"},
		"trust-list":             {"trust", "list"},
		"user-list":              {"user", "list"},
		"role-list":              {"role", "list"},
		"service-account-get":    {"service-account", "get", "ci"},
		"whoami":                 {"whoami"},
		"service-account-create": {"service-account", "create", "ci"},
		"decision-create":        {"decision", "create", "--action", "workload.create", "--resource", "Workload/web"},
		"context-list":           {"context", "list"},
	} {
		for _, format := range []string{"table", "json", "yaml"} {
			t.Run(name+"/"+format, func(t *testing.T) {
				r := run(t, append(args, "-o", format)...)
				got := "-- stdout --\n" + r.out + "-- stderr --\n" + r.err
				got = strings.ReplaceAll(got, f.URL, "SERVER")
				got = strings.ReplaceAll(got, f.log.key, "LOGKEY")
				if name == "context-list" {
					got = untimed(got)
				}
				compareGolden(t, filepath.Join("testdata", "golden", name+"."+format), got)
			})
		}
	}
}

// untimed takes out the time of sign-in, which no test decides.
func untimed(s string) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '"' || r == '\n' || r == '\'' })
	for _, w := range words {
		if len(w) == len("2026-01-02T03:04:05Z") && w[10] == 'T' && w[19] == 'Z' {
			s = strings.ReplaceAll(s, w, "2026-01-02T03:04:05Z")
		}
	}
	return s
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: -want +got:\n%s", file, d)
	}
}

func TestHelpIsStable(t *testing.T) {
	for _, name := range []string{"provost", "provost workload create", "provost why", "provost events list"} {
		args := append(strings.Fields(name)[1:], "--help")
		compareGolden(t, filepath.Join("testdata", "golden", strings.ReplaceAll("help "+name, " ", "-")+".txt"), run(t, args...).out)
	}
}

func TestLongTablesAreWrittenInBatches(t *testing.T) {
	var out strings.Builder
	p := &program{Streams: Streams{Out: &out}}
	tab := p.table([]string{"N", "V"})
	for range 2*tableBatch + 10 {
		tab.add("1", "x")
		if len(tab.rows) >= tableBatch {
			t.Fatal("rows are held back without end")
		}
	}
	tab.add("123456", strings.Repeat("y", maxCell+100))
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2*tableBatch+12 || lines[0] != "N  V" || !strings.HasPrefix(lines[len(lines)-1], "123456  yyy") || len(lines[len(lines)-1]) > maxCell+20 {
		t.Errorf("%d lines, the last of %d bytes", len(lines), len(lines[len(lines)-1]))
	}
}

func TestColorIsForTerminals(t *testing.T) {
	var out strings.Builder
	tab := &table{w: &out, color: true, heads: true}
	tab.add("STATUS", "NAME")
	tab.add("running", "web")
	tab.add("odd", "db")
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	want := bold + "STATUS" + reset + "   " + bold + "NAME" + reset + "\n" + green + "running" + reset + "  web\nodd      db\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	t.Setenv("NO_COLOR", "1")
	if colored(os.Stdout) || colored(&out) {
		t.Error("colour where there should be none")
	}
}

// FuzzYAML reads back what was written: all but the precision of numbers, which
// YAML leaves to its readers, must be there.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{goldenEvent, goldenTenant, `[]`, `{}`, `[1e400,-0,"\u0000","no",null,true]`, `{"a":{"b":[{}]}}`, `["2026-01-02","<<","~","a\n b\n","\n","- x"," y "]`,
		`{"<<":{"no":1},"1":2,"":3}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := canon.Transform(nil, b); err != nil {
			return // no JSON, or with a key twice
		}
		var out strings.Builder
		if err := writeYAML(&out, b); err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := json.Unmarshal(b, &want); err != nil {
			return // a number that no double holds
		}
		if err := yaml.Unmarshal([]byte(out.String()), &got); err != nil {
			t.Fatalf("%v in\n%s", err, out.String())
		}
		if d := cmp.Diff(countless(want), countless(got)); d != "" {
			t.Errorf("%s became\n%s-want +got:\n%s", b, out.String(), d)
		}
	})
}

// countless replaces all numbers by one.
func countless(v any) any {
	switch v := v.(type) {
	case float64, int, int64, uint64:
		return "number"
	case []any:
		for i := range v {
			v[i] = countless(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = countless(v[k])
		}
	}
	return v
}
