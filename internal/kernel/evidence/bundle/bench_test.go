package bundle

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

const benchEvents = 100_000

// BenchmarkVerify checks a bundle of 100,000 events with an evidence artifact
// each, on one core. The goal is 3 s.
func BenchmarkVerify(b *testing.B) {
	l := newTestLog(b)
	l.addN(benchEvents)
	p := l.params(Admissible)
	for _, format := range []string{"tar.gz", "zip", "dir"} {
		path := ""
		b.Run(format, func(b *testing.B) {
			switch {
			case path != "":
			case format == "dir":
				path = l.writeDir(p, l.source())
			default:
				path = filepath.Join(l.tb.TempDir(), "bundle")
				l.writeArchive(p, l.source(), path, format)
			}
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			cpu := cpuTime(b)
			for b.Loop() {
				r := verifyOK(b, path, Options{Keys: []string{l.key}})
				b.SetBytes(r.Bytes)
			}
			b.ReportMetric((cpuTime(b)-cpu).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// cpuTime is what this process has used. Beside other work it says more than
// the clock.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWrite exports 100,000 events with an artifact each.
func BenchmarkWrite(b *testing.B) {
	l := newTestLog(b)
	l.addN(benchEvents)
	for _, format := range []string{"tar.gz", "zip"} {
		b.Run(format, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			path := filepath.Join(b.TempDir(), "bundle")
			for b.Loop() {
				l.writeArchive(l.params(Admissible), l.source(), path, format)
			}
			info, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(info.Size())/1e6, "MB/bundle")
		})
	}
}

// writeArchive exports into a file.
func (l *testLog) writeArchive(p Params, src Source, path, format string) Summary {
	l.tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		l.tb.Fatal(err)
	}
	var sink Sink
	if format == "zip" {
		sink, err = NewZip(f, p.TempDir)
	} else {
		sink, err = NewTarGz(f)
	}
	if err != nil {
		l.tb.Fatal(err)
	}
	s, err := Write(context.Background(), sink, p, src)
	if err != nil {
		l.tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		l.tb.Fatal(err)
	}
	return s
}
