package blob_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
)

const crashDir = "PROVOST_TEST_BLOB_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		writeForever(dir)
	}
	os.Exit(m.Run())
}

// writeForever is the victim: it puts and uploads blobs and names each on
// standard output once the store has acknowledged it, until it is killed.
func writeForever(dir string) {
	s, err := blob.New(blob.Config{Dir: dir, Reserve: -1})
	check(err)
	ctx := context.Background()
	whole := make([]byte, 1<<20)
	for i := uint64(0); ; i++ {
		content := whole[:16+rand.IntN(len(whole)-16)]
		binary.LittleEndian.PutUint64(content, i)
		binary.LittleEndian.PutUint64(content[8:], rand.Uint64())
		d := blob.SHA256.Sum(content)
		if i%2 == 0 {
			_, err = s.Put(ctx, d, -1, bytes.NewReader(content))
			check(err)
		} else {
			u, err := s.Begin(ctx, "alice", "demo/app")
			check(err)
			half := int64(len(content) / 2)
			_, err = s.Append(ctx, u, 0, half, bytes.NewReader(content[:half]))
			check(err)
			_, err = s.Append(ctx, u, half, -1, bytes.NewReader(content[half:]))
			check(err)
			_, err = s.Commit(ctx, u, d)
			check(err)
		}
		fmt.Println(d)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// After kill -9 every acknowledged blob is there, and nothing under a digest is torn.
func TestKilledWriter(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	acked := map[blob.Digest]bool{}
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			d, err := blob.ParseDigest(lines.Text())
			if err != nil {
				break // the last line was cut by the kill
			}
			acked[d] = true
			if n == 1+round%3 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed, as intended
		if stderr.Len() > 0 {
			t.Fatalf("the writer failed: %s", &stderr)
		}
	}
	s := open(t, blob.Config{Dir: dir})
	for d := range acked {
		if got := blob.SHA256.Sum(read(t, s, d)); got != d {
			t.Errorf("acknowledged %s holds %s", d, got)
		}
	}
	files := leftovers(t, dir, "blobs")
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		h := blob.SHA256.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != filepath.Base(path) {
			t.Errorf("%s holds %s", path, got)
		}
	}
	swept, err := s.Sweep(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rounds, %d acknowledged, %d published, %d unfinished", rounds, len(acked), len(files), swept)
	if left := append(leftovers(t, dir, "tmp"), leftovers(t, dir, "uploads")...); len(left) > 0 {
		t.Errorf("not swept: %v", left)
	}
}
