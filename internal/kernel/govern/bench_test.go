package govern_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"provost.dev/provost/internal/kernel/store/storetest"
)

// BenchmarkDo is a governed write in process: decision, SQL, one event, durable
// commit, with 64 callers at once.
func BenchmarkDo(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	var n atomic.Int64
	b.SetParallelism(32) // × GOMAXPROCS
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			name := fmt.Sprintf("b%d", n.Add(1))
			a := w.create(name, 1)
			if _, err := w.gov.Do(b.Context(), a, insertThing(name)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
