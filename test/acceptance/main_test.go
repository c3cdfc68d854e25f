package acceptance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What TestMain prepares: the binary under test, the guest that images hold,
// and the server that the tests share.
var (
	provostBin string
	guestBin   string
	shared     *server
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of a test's time is spent waiting for containers and jobs, so more
	// run at once than there are processors, unless the caller says otherwise.
	explicit := false
	flag.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "test.parallel" })
	var code int
	var err error
	if !explicit {
		err = flag.Set("test.parallel", "8")
	}
	if err == nil {
		code, err = runAll(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "acceptance:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "provost-acceptance-*")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := build(dir); err != nil {
		return 1, err
	}
	if shared, err = startServer(filepath.Join(dir, "data")); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, errors.Join(shared.clear(), shared.stop())
}

func build(dir string) error {
	provostBin, guestBin = os.Getenv("PROVOST_BIN"), filepath.Join(dir, "guest")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if provostBin == "" {
		provostBin = filepath.Join(dir, "provost")
		if err := goBuild(ctx, provostBin, "provost.dev/provost/cmd/provost"); err != nil {
			return err
		}
	}
	return goBuild(ctx, guestBin, "./testdata/guest")
}

func goBuild(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, b)
	}
	return nil
}
