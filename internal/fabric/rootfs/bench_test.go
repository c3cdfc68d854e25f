package rootfs_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/rootfs"
)

// someImage has n files of 16 KiB that compress about as binaries do, gzipped.
func someImage(b *testing.B, n int) (*memSource, blob.Digest, int64) {
	b.Helper()
	src, rng := newSource(), rand.New(rand.NewPCG(1, 2))
	body := make([]byte, 16<<10)
	var es []entry
	for i := range n {
		for k := range body {
			body[k] = byte(rng.IntN(24))
		}
		es = append(es, file(fmt.Sprintf("usr/lib/d%d/f%d", i/50, i), string(body)))
	}
	a := archive(b, es...)
	return src, src.image(b, layer{gzipLayer, gz(b, a), blob.SHA256.Sum(a)}), int64(n * len(body))
}

// BenchmarkUnpack is the first use of an image of 4,000 files and 64 MiB.
func BenchmarkUnpack(b *testing.B) {
	src, d, size := someImage(b, 4000)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := open(b, rootfs.Config{}).Get(b.Context(), src, d); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCached is every later use.
func BenchmarkCached(b *testing.B) {
	src, d, _ := someImage(b, 10)
	c := open(b, rootfs.Config{})
	if _, err := c.Get(b.Context(), src, d); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Get(b.Context(), src, d); err != nil {
			b.Fatal(err)
		}
	}
}
