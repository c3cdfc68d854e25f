package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/logfile"
	"provost.dev/provost/internal/kernel"
)

func TestEnd(t *testing.T) {
	needRunc(t)
	exits := make(chan runtime.Status, 16)
	d := openDriver(t, Config{OnExit: func(st runtime.Status) { exits <- st }})
	image := busyboxImage(t)
	for _, tt := range []struct {
		name, script string
		code         int
		reason       runtime.Reason
	}{
		{"Zero", "exit 0", 0, runtime.ReasonExited},
		{"Code", "exit 42", 42, runtime.ReasonExited},
		{"AtOnce", "", 0, runtime.ReasonExited},
		{"Signal", "sh -c 'kill -ABRT $PPID'; kill -ABRT 1; exit 9", 9, runtime.ReasonExited}, // pid 1 is immune to its own
		{"ChildrenEndWithTheFirst", "sleep 60 & exit 5", 5, runtime.ReasonExited},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shell(tt.name, image, tt.script)
			s.Labels = map[string]string{"tenant": "demo", "workload": tt.name}
			_, st := run(t, d, s)
			if st.State != runtime.Exited || st.Reason != tt.reason || st.ExitCode != tt.code || st.OOMKilled || st.PID != 0 {
				t.Errorf("got %+v, want code %d, reason %s", st, tt.code, tt.reason)
			}
			if st.Labels["workload"] != tt.name || st.StartedAt.Before(st.CreatedAt) || st.FinishedAt.Before(st.StartedAt) {
				t.Errorf("labels %v, times %v %v %v", st.Labels, st.CreatedAt, st.StartedAt, st.FinishedAt)
			}
			if told := <-exits; told.ID != tt.name || told.ExitCode != tt.code {
				t.Errorf("OnExit was told %+v", told)
			}
		})
	}
	if len(exits) > 0 {
		t.Errorf("OnExit was told too often: %+v", <-exits)
	}
}

// TestKilledFromOutside ends a container behind the driver's back.
func TestKilledFromOutside(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	st := start(t, d, shell("victim", image, "exec sleep 60"))
	if err := unix.Kill(st.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st = wait(t, d, "victim"); st.Reason != runtime.ReasonSignalled || st.ExitCode != 137 || st.OOMKilled {
		t.Errorf("got %+v, want signalled", st)
	}
}

func TestCannotStart(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	for _, tt := range []struct {
		name string
		edit func(*runtime.Spec)
		want string
	}{
		{"NoProgram", func(s *runtime.Spec) { s.Args = []string{"/no/such"} }, "no such file or directory"},
		{"NotInPath", func(s *runtime.Spec) { s.Args = []string{"nothing"} }, "not found in $path"},
		{"NotExecutable", func(s *runtime.Spec) { s.Args = []string{"/etc/hosts"} }, "permission denied"},
		{"NoCwd", func(s *runtime.Spec) { s.Cwd = "/no/such" }, "/no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shell(tt.name, image, "")
			tt.edit(&s)
			st := start(t, d, s)
			if st.State != runtime.Failed || st.Reason != runtime.ReasonStartFailed || !strings.Contains(strings.ToLower(st.Message), tt.want) {
				t.Errorf("got %s %s %q, want it to say %q", st.State, st.Reason, st.Message, tt.want)
			}
			if strings.Contains(st.Message, d.cfg.StateDir) || strings.Contains(st.Message, image) {
				t.Errorf("message tells paths of the host: %q", st.Message)
			}
			if out := output(t, d, tt.name, runtime.LogOptions{}); out != "" {
				t.Errorf("a process that never ran printed %q", out)
			}
			// Kept until it is deleted, and its name taken until then.
			if _, err := d.Start(t.Context(), s); kernel.KindOf(err) != kernel.Conflict {
				t.Errorf("second Start: %v, want Conflict", err)
			}
		})
	}
}

// TestExecFails has the kernel refuse the program when the runtime has already
// said that it runs. Then the runtime's words are its output.
func TestExecFails(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	if err := os.WriteFile(filepath.Join(image, "script"), []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := shell("script", image, "")
	s.Args = []string{"/script"}
	out, st := run(t, d, s)
	if !st.State.Final() || st.State == runtime.Exited && (st.ExitCode == 0 || !strings.Contains(strings.ToLower(out), "no such file or directory")) {
		t.Errorf("got %+v, output %q", st, out)
	}
}

func TestStop(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	const obeys, ignores = `trap 'echo bye; exit 3' TERM USR1; echo up; while :; do sleep 0.01; done`, `trap '' TERM; echo up; while :; do sleep 1; done`
	for _, tt := range []struct {
		name, script string
		signal       int
		grace        time.Duration
		code         int
		reason       runtime.Reason
	}{
		{"WithinGrace", obeys, 0, time.Minute, 3, runtime.ReasonStopped},
		{"BySignalOfTheImage", obeys, 10, time.Minute, 3, runtime.ReasonStopped},
		{"KilledAfterGrace", ignores, 0, 50 * time.Millisecond, 137, runtime.ReasonKilled},
		{"KilledAtOnce", obeys, 0, 0, 137, runtime.ReasonKilled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shell(tt.name, image, tt.script)
			s.StopSignal = unix.Signal(tt.signal)
			start(t, d, s)
			awaitLine(t, d, tt.name, "up")
			st, err := d.Stop(t.Context(), tt.name, tt.grace)
			if err != nil || st.State != runtime.Exited || st.ExitCode != tt.code || st.Reason != tt.reason {
				t.Errorf("Stop: %+v, %v; want code %d, reason %s", st, err, tt.code, tt.reason)
			}
			if again, err := d.Stop(t.Context(), tt.name, 0); err != nil || again.Reason != tt.reason {
				t.Errorf("second Stop: %+v, %v", again, err)
			}
		})
	}
	t.Run("ShorterGraceWins", func(t *testing.T) {
		start(t, d, shell("impatient", image, ignores))
		awaitLine(t, d, "impatient", "up")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Stop(ctx, "impatient", time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("Stop under a cancelled context: %v", err)
		}
		if st, err := d.Stop(t.Context(), "impatient", 0); err != nil || st.Reason != runtime.ReasonKilled {
			t.Errorf("Stop: %+v, %v", st, err)
		}
	})
}

func TestDelete(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	start(t, d, shell("doomed", image, `trap '' TERM; for i in 1 2 3 4 5; do sleep 60 & done; echo up; while :; do sleep 60; done`))
	awaitLine(t, d, "doomed", "up")
	reader, err := d.Logs(t.Context(), "doomed", runtime.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := d.Delete(t.Context(), "doomed"); err != nil {
		t.Fatal(err)
	}
	if dirs := d.cgroup.Dirs(d.cgroupOf("doomed")); len(dirs) > 0 {
		t.Errorf("cgroups left: %v", dirs)
	}
	if left, err := os.ReadDir(d.containersDir()); err != nil || len(left) > 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
	// Whoever has the log open reads it to its end.
	if entries, err := reader.Next(); err != nil || string(entries[0].Data) != "up" {
		t.Errorf("Next: %v, %v", entries, err)
	}
	if _, err := reader.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next: %v, want io.EOF", err)
	}
	if err := d.Delete(t.Context(), "doomed"); kernel.KindOf(err) != kernel.NotFound {
		t.Errorf("second Delete: %v, want NotFound", err)
	}
	if out, _ := run(t, d, shell("doomed", image, `echo again`)); out != "again\n" {
		t.Errorf("the id cannot be used again: %q", out)
	}
}

func TestUnknownContainer(t *testing.T) {
	d := openDriver(t, Config{})
	for _, id := range []string{"nobody", "", ".", "..", "../containers", "a/b", "\x00"} {
		_, inspectErr := d.Inspect(id)
		_, stopErr := d.Stop(t.Context(), id, 0)
		_, waitErr := d.Wait(t.Context(), id)
		_, logsErr := d.Logs(t.Context(), id, runtime.LogOptions{})
		for what, err := range map[string]error{"Inspect": inspectErr, "Stop": stopErr, "Wait": waitErr, "Logs": logsErr, "Delete": d.Delete(t.Context(), id)} {
			if kernel.KindOf(err) != kernel.NotFound {
				t.Errorf("%s(%q): %v, want NotFound", what, id, err)
			}
		}
	}
}

func TestConcurrentStarts(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{MaxContainers: 12}), busyboxImage(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	kinds := map[kernel.Kind]int{}
	for i := range 20 {
		wg.Go(func() {
			// Each id twice, and more ids than there is room for after that.
			_, err := d.Start(t.Context(), shell(fmt.Sprintf("c%d", i%10), image, "exec sleep 60"))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				kinds[kernel.KindOf(err)]++
			}
		})
	}
	wg.Wait()
	if len(kinds) != 1 || kinds[kernel.Conflict] != 10 {
		t.Errorf("errors by kind: %v, want 10 conflicts", kinds)
	}
	for i := range 2 {
		start(t, d, shell(fmt.Sprintf("more%d", i), image, "exec sleep 60"))
	}
	if _, err := d.Start(t.Context(), shell("toomany", image, "")); kernel.KindOf(err) != kernel.TooMany {
		t.Errorf("13th container: %v, want TooMany", err)
	}
	for _, st := range d.List() {
		if st.State != runtime.Running || st.PID == 0 {
			t.Errorf("%s is %s: %s", st.ID, st.State, st.Message)
		}
		wg.Go(func() {
			if err := d.Delete(t.Context(), st.ID); err != nil {
				t.Errorf("Delete(%s): %v", st.ID, err)
			}
		})
		wg.Go(func() { _, _ = d.Stop(t.Context(), st.ID, 0) }) // may find it gone
	}
	wg.Wait()
	if left := d.List(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestStartUnderCancelledContext(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	for i := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*8*time.Millisecond)
		id := fmt.Sprintf("c%d", i)
		_, err := d.Start(ctx, shell(id, image, "exec sleep 60"))
		cancel()
		if err == nil {
			continue // it was quick enough
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start: %v", err)
		}
		if _, err := d.Inspect(id); kernel.KindOf(err) != kernel.NotFound {
			t.Errorf("after a cancelled Start, Inspect: %v, want NotFound", err)
		}
	}
}

func TestLogs(t *testing.T) {
	needRunc(t)
	d, image := openDriver(t, Config{}), busyboxImage(t)
	t.Run("KeepEveryByte", func(t *testing.T) {
		start(t, d, shell("bytes", image, `printf 'a\0b\377\n\n'; printf 'no newline'; echo err >&2`))
		wait(t, d, "bytes")
		r, err := d.Logs(t.Context(), "bytes", runtime.LogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		entries, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		var stdout, stderr [][]byte
		for _, e := range entries {
			if e.Stream == runtime.Stdout {
				stdout = append(stdout, e.Data)
			} else {
				stderr = append(stderr, e.Data)
			}
		}
		if got := bytes.Join(stdout, []byte("|")); string(got) != "a\x00b\xff||no newline" {
			t.Errorf("stdout %q", got)
		}
		if got := bytes.Join(stderr, []byte("|")); string(got) != "err" {
			t.Errorf("stderr %q", got)
		}
	})
	t.Run("FollowUntilTheEnd", func(t *testing.T) {
		start(t, d, shell("follow", image, `i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); sleep 0.005; done`))
		out := output(t, d, "follow", runtime.LogOptions{Follow: true})
		if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 50 || lines[49] != "49" {
			t.Errorf("got %d lines: %q", len(lines), out)
		}
		if out := output(t, d, "follow", runtime.LogOptions{Follow: true, Tail: 2}); out != "48\n49\n" {
			t.Errorf("the last two after the end: %q", out)
		}
	})
	t.Run("ReadersAreBounded", func(t *testing.T) {
		start(t, d, shell("popular", image, `exec sleep 60`))
		for range maxFollowers {
			r, err := d.Logs(t.Context(), "popular", runtime.LogOptions{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
		}
		if _, err := d.Logs(t.Context(), "popular", runtime.LogOptions{Follow: true}); kernel.KindOf(err) != kernel.TooMany {
			t.Errorf("one more: %v, want TooMany", err)
		}
	})
}

func TestHugeOutputIsBounded(t *testing.T) {
	needRunc(t)
	limits := logfile.Limits{SegmentBytes: 256 << 10, Segments: 2, BytesPerSecond: 1 << 30}
	d, image := openDriver(t, Config{LogLimits: limits}), busyboxImage(t)
	start(t, d, shell("loud", image, `yes 'a line of output, and then many more' | head -c 40000000; echo; echo last`))
	wait(t, d, "loud")
	var total int64
	segments, err := filepath.Glob(filepath.Join(d.containersDir(), "loud", logDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range segments {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total == 0 || total > 512<<10 {
		t.Errorf("40 MB of output are kept in %d bytes, want at most %d", total, 512<<10)
	}
	out := output(t, d, "loud", runtime.LogOptions{})
	if !strings.HasSuffix(out, "\nlast\n") || !strings.HasPrefix(out, "[older output was dropped here]\n") {
		t.Errorf("log begins %q, ends %q", out[:60], out[len(out)-20:])
	}
}

// TestDiskFull starts on a file system that has no room, and again when it has.
func TestDiskFull(t *testing.T) {
	needRunc(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs after the driver's
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	state := filepath.Join(dir, "state")
	d, image := openDriver(t, Config{StateDir: state}), busyboxImage(t)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	if _, err := d.Start(t.Context(), shell("full", image, "echo hi")); kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("Start on a full disk: %v, want Unavailable", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if out, st := run(t, d, shell("full", image, "echo hi")); out != "hi\n" {
		t.Errorf("Start with room again: %q, %+v", out, st)
	}
}
