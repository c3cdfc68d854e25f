package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// person is somebody at a shell: the product's command line, signed in, and
// the public tools.
type person struct {
	t    *testing.T
	home string
	env  []string
}

// shell signs somebody in.
func shell(t *testing.T, tenant string, u account) *person {
	t.Helper()
	p := &person{t: t, home: t.TempDir()}
	p.env = []string{"HOME=" + p.home, "XDG_CONFIG_HOME=" + p.home, "DOCKER_CONFIG=" + p.home, "TUF_ROOT=" + filepath.Join(p.home, "tuf"), "COSIGN_PASSWORD=pw", "NO_COLOR=1"}
	args := []string{"login", "--url", shared.url, "--username", u.Username, "--password-stdin"}
	if tenant != "system" {
		args = append(args, "--tenant", tenant)
	}
	if code, out := run(t, args, u.Password+"\n", p.env...); code != 0 {
		t.Fatalf("provost login: %d\n%s", code, out)
	}
	return p
}

// provost runs a command and returns what it printed on both outputs.
func (p *person) provost(want int, args ...string) string {
	p.t.Helper()
	return p.provostWith("", want, args...)
}

func (p *person) provostWith(stdin string, want int, args ...string) string {
	p.t.Helper()
	code, out := run(p.t, args, stdin, p.env...)
	if code != want {
		p.t.Fatalf("provost %s: exit code %d, want %d\n%s", strings.Join(args, " "), code, want, out)
	}
	return out
}

// field runs a command with -o json and returns a text of what it printed.
func (p *person) field(path string, args ...string) string {
	p.t.Helper()
	out := p.provost(0, append(args, "-o", "json")...)
	o, _ := parseNumbers(p.t, []byte(out[strings.Index(out, "{"):])).(object)
	s, ok := dig(o, path).(string)
	if !ok {
		p.t.Fatalf("provost %v: no %s in %s", args, path, out)
	}
	return s
}

// tool runs a public tool and returns what it printed on standard output.
func (p *person) tool(name string, args ...string) string {
	p.t.Helper()
	out, err := p.tryTool(name, args...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", filepath.Base(name), strings.Join(args, " "), err)
	}
	return out
}

func (p *person) tryTool(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = append(environ(), p.env...), p.home
	out, err := cmd.Output()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		err = errors.New(ended.Error() + ": " + string(ended.Stderr))
	}
	return strings.TrimSpace(string(out)), err
}

func (p *person) file(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.home, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// cosign is the flags with which cosign works without a network.
var offline = []string{"--signing-config", "sc.json", "--trusted-root", "tr.json"}

// TestStory is the product's main job, done by its people with real tools: an
// administrator makes a tenant; a developer pushes an image and is refused until
// it is signed and attested; it runs; the auditor exports a bundle that a
// stranger verifies offline; one flipped byte is found.
func TestStory(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	crane, cosign := tool(t, "crane"), tool(t, "cosign")
	const password = "correct horse battery"
	id := unique("acme")
	admin := shell(t, "system", shared.dev.Platform)
	admin.provost(0, "tenant", "create", id, "--authority-binding", "auth-demo", "--jurisdiction", "DE", "--classification-ceiling", "restricted", "--policy-baseline", "policy-baseline")
	for _, role := range []string{"operator", "developer", "auditor"} {
		shared.admin(t).post(t, "/v1/users?tenant="+id, object{"username": role, "password": password, "roles": []string{role}}).want(201)
	}
	dev := shell(t, id, account{Username: "developer", Password: password})
	op := shell(t, id, account{Username: "operator", Password: password})
	auditor := shell(t, id, account{Username: "auditor", Password: password})

	image := shared.dev.Registry + "/" + id + "/app"
	dev.tool(crane, "auth", "login", shared.dev.Registry, "-u", "developer@"+id, "-p", password)
	dev.file("layer.tar", string(guestLayer(t)))
	dev.tool(crane, "append", "-t", image+":v0", "--oci-empty-base", "-f", "layer.tar")
	dev.tool(crane, "mutate", image+":v0", "--entrypoint", "/guest,tick", "-u", "1000", "-t", image+":v1")
	pinned := image + "@" + dev.tool(crane, "digest", image+":v1")

	refused := func(ref, rule string) {
		t.Helper()
		out := dev.provost(4, "workload", "create", "--image", ref)
		for _, word := range []string{rule, "fix", "evidence", "eosc://evidence/sha256:"} {
			if !strings.Contains(out, word) {
				t.Errorf("%s: the refusal does not say %q:\n%s", ref, word, out)
			}
		}
	}
	refused(image+":v1", "image.not_pinned")
	refused(pinned, "image.signature_missing")
	dev.tool(cosign, "generate-key-pair")
	dev.tool(cosign, "signing-config", "create", "--out", "sc.json")
	dev.tool(cosign, "trusted-root", "create", "--out", "tr.json")
	sign := append([]string{"sign", "-y", "--key", "cosign.key"}, offline...)
	dev.tool(cosign, append(sign, pinned)...)
	refused(pinned, "image.signature_invalid") // by a key that nobody here trusts
	op.provost(0, "trust", "add", "ci", filepath.Join(dev.home, "cosign.pub"))
	refused(pinned, "image.provenance_missing")
	attest := func(typ, file string, predicate object) {
		t.Helper()
		dev.file(file, string(encode(t, predicate)))
		dev.tool(cosign, append(append([]string{"attest", "-y", "--key", "cosign.key", "--type", typ, "--predicate", file}, offline...), pinned)...)
	}
	attest("slsaprovenance1", "provenance.json", predicates[provenance])
	refused(pinned, "image.sbom_missing")
	attest("cyclonedx", "bom.json", predicates[billOfMaterials])
	dev.tool(cosign, "verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", pinned)
	dev.tool(cosign, "verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--type", "cyclonedx", pinned)

	workload := dev.field("id", "workload", "create", "--image", pinned, "--wait")
	t.Cleanup(func() { dev.provost(0, "workload", "delete", workload) })
	if status := dev.field("status", "workload", "get", workload); status != "running" {
		t.Errorf("the workload is %s", status)
	}
	eventually(t, "the workload to write", func() bool { return strings.Contains(dev.provost(0, "workload", "logs", workload), "tick") })

	why := auditor.provost(0, "why", "workload/"+workload)
	for _, word := range []string{"execution.admit", "developer@" + id, "✓", "ci"} {
		if !strings.Contains(why, word) {
			t.Errorf("why does not say %q:\n%s", word, why)
		}
	}
	story := auditor.provost(0, "events", "list", "--limit", "0")
	for _, word := range []string{"olz.bootstrap", "execution.refuse", "execution.admit", "workload.envelope.start", "image.push", "trust-key.create"} {
		if !strings.Contains(story, word) {
			t.Errorf("the log does not say %q", word)
		}
	}
	bundle := filepath.Join(auditor.home, "bundle.tar.gz")
	auditor.provost(0, "export", "--profile", "admissible", "--out", bundle)
	raw, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	f := untar(t, raw)
	smoke(t, f)
	recompute(t, f)
	verified(t, raw, 0)
	dir := t.TempDir()
	f.write(t, dir)
	flipped := slices.Clone(f["events.jsonl"])
	flipped[len(flipped)/2] ^= 1
	files{"events.jsonl": flipped}.write(t, dir)
	if out := verified(t, dir, 6); !strings.Contains(out, "events.jsonl") {
		t.Errorf("verify does not name the file:\n%s", out)
	}
	carriedAlong(t, f)
}

// carriedAlong: the bundle holds what the admission rested on, the signature
// and the attestations themselves.
func carriedAlong(t *testing.T, f files) {
	t.Helper()
	found := map[string]bool{}
	for name, b := range f {
		for _, mark := range []string{"dsseEnvelope", "verificationMaterial"} {
			if strings.HasPrefix(name, "artifacts/") && strings.Contains(string(b), mark) {
				found[mark] = true
			}
		}
	}
	if len(found) != 2 {
		t.Errorf("of signatures the bundle holds only %v", found)
	}
}

// TestCrane does with an unmodified crane what people do with registries.
func TestCrane(t *testing.T) {
	t.Parallel()
	crane := tool(t, "crane")
	dev := shell(t, "demo", shared.account(t, "developer", "demo"))
	repo := shared.dev.Registry + "/demo/" + unique("crane")
	if _, err := dev.tryTool(crane, "digest", repo+":v1"); err == nil {
		t.Error("crane reads without a login")
	}
	dev.tool(crane, "auth", "login", shared.dev.Registry, "-u", "developer@demo", "-p", shared.account(t, "developer", "demo").Password)
	dev.file("layer.tar", string(guestLayer(t)))
	dev.tool(crane, "append", "-t", repo+":v1", "--oci-empty-base", "-f", "layer.tar")
	dev.tool(crane, "tag", repo+":v1", "v2")
	dev.tool(crane, "copy", repo+":v1", repo+"-copy:v1")
	dev.tool(crane, "validate", "--remote", repo+":v1")
	if got := strings.Fields(dev.tool(crane, "ls", repo)); !slices.Equal(got, []string{"v1", "v2"}) {
		t.Errorf("tags are %v", got)
	}
	if got := dev.tool(crane, "catalog", shared.dev.Registry); !strings.Contains(got, strings.TrimPrefix(repo, shared.dev.Registry+"/")) {
		t.Errorf("the catalogue is %q", got)
	}
	if a, b := dev.tool(crane, "digest", repo+":v1"), dev.tool(crane, "digest", repo+"-copy:v1"); a != b {
		t.Errorf("a copy has digest %s, the original %s", b, a)
	}
	dev.tool(crane, "pull", repo+":v1", "pulled.tar")
	dev.tool(crane, "delete", repo+"@"+dev.tool(crane, "digest", repo+":v1"))
	if _, err := dev.tryTool(crane, "manifest", repo+":v2"); err == nil {
		t.Error("a tag of a deleted manifest is still there")
	}
	for name, foreign := range map[string]string{"another tenant's": "/rival/app:v1", "nobody's": "/app:v1"} {
		if _, err := dev.tryTool(crane, "append", "-t", shared.dev.Registry+foreign, "--oci-empty-base", "-f", "layer.tar"); err == nil {
			t.Errorf("crane pushed into %s repository", name)
		}
	}
}

// TestExitCodes holds the command line to its documented exit codes.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	op := shell(t, "demo", shared.account(t, "operator", "demo"))
	name := unique("codes")
	rules := op.file(name+".cedar", narrowing("x"))
	op.provost(0, "whoami")
	op.provost(0, "version")
	op.provost(0, "policy", "create", rules)
	op.provost(0, "policy", "test", rules)
	op.provost(0, "policy", "deprecate", name+"@1")
	op.provost(2, "nonsense")
	op.provost(2, "workload", "create", "--colour", "red")
	op.provost(2, "policy", "create", op.file("bad.cedar", "permit nothing"))
	op.provost(3, "workload", "get", "none")
	op.provost(3, "tenant", "get", "rival")
	op.provost(4, "tenant", "create", name, "--authority-binding", "auth-demo", "--jurisdiction", "DE", "--classification-ceiling", "internal", "--policy-baseline", "policy-baseline")
	op.provost(5, "policy", "deprecate", name+"@1")
	op.provost(6, "verify", op.file("not-a-bundle", "x"))
	op.env = append(op.env, "PROVOST_URL=http://127.0.0.1:1", "PROVOST_TOKEN=x")
	op.provost(75, "events", "list")
	if code, _ := run(t, []string{"events", "list"}, "", "HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir(), "PROVOST_URL="+shared.url); code != 4 {
		t.Errorf("without a sign-in the exit code is %d", code)
	}
	for _, format := range []string{"json", "yaml"} {
		if out := shell(t, "demo", shared.account(t, "viewer", "demo")).provost(0, "tenant", "get", "demo", "-o", format); !strings.Contains(out, "jurisdiction") {
			t.Errorf("-o %s: %s", format, out)
		}
	}
}

// Every command explains itself with an example.
func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	var walk func(args []string, depth int)
	seen := 0
	walk = func(args []string, depth int) {
		code, out := run(t, append(slices.Clone(args), "--help"), "")
		if code != 0 || !strings.Contains(out, "Usage:") || !strings.Contains(out, "Examples:") {
			t.Errorf("provost %v --help: exit code %d, %d bytes", args, code, len(out))
		}
		seen++
		_, list, found := strings.Cut(out, "Available Commands:\n")
		if depth == 2 || !found && depth > 0 {
			return
		}
		if depth == 0 {
			list = out[strings.Index(out, "Examples:"):]
		}
		for _, line := range strings.Split(list, "\n") {
			if fields := strings.Fields(line); strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "   ") && len(fields) > 1 && !strings.HasPrefix(fields[0], "-") && fields[0] != "provost" && fields[0] != "help" {
				walk(append(slices.Clone(args), fields[0]), depth+1)
			}
		}
	}
	walk(nil, 0)
	if seen < 40 {
		t.Errorf("only %d commands were found", seen)
	}
	var report object
	if _, out := run(t, []string{"doctor", "--data-dir", t.TempDir(), "-o", "json"}, ""); json.Unmarshal([]byte(out), &report) != nil && !strings.Contains(out, "[") {
		t.Errorf("doctor -o json: %s", out)
	}
}
