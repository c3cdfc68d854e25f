package blob_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"provost.dev/provost/internal/fabric/blob"
)

// BenchmarkPut stores new blobs, durably.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s, err := blob.New(blob.Config{Dir: b.TempDir(), Reserve: -1})
			if err != nil {
				b.Fatal(err)
			}
			content := make([]byte, size)
			b.SetBytes(int64(size))
			for i := uint64(0); b.Loop(); i++ {
				binary.LittleEndian.PutUint64(content, i)
				d := blob.SHA256.Sum(content)
				if _, err := s.Put(b.Context(), d, -1, bytes.NewReader(content)); err != nil {
					b.Fatal(err)
				}
				if err := s.Delete(b.Context(), d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
