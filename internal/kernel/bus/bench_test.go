package bus_test

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel/bus"
)

// BenchmarkStart is the time from nothing to connected, and back to nothing.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		x, err := bus.Start(b.Context(), bus.Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := x.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkWake is the way of one message from Publish to a waiting reader.
func BenchmarkWake(b *testing.B) {
	x, s := benchBus(b)
	data := make([]byte, 100)
	for b.Loop() {
		if err := x.Publish(bus.Subject{"events", "demo"}, data); err != nil {
			b.Fatal(err)
		}
		<-s.C
	}
}

// BenchmarkPublish is what a publisher pays; nobody listens on the subject.
func BenchmarkPublish(b *testing.B) {
	x, _ := benchBus(b)
	data := make([]byte, 100)
	for b.Loop() {
		if err := x.Publish(bus.Subject{"events", "rival"}, data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleMemory reports what an idle bus holds: the first one with its
// thousand subscriptions on top. Run it with -benchtime 1x.
func BenchmarkIdleMemory(b *testing.B) {
	heap, rss := footprint(b)
	x, _ := benchBus(b)
	busHeap, busRSS := footprint(b)
	for i := range 1000 {
		if _, err := x.Subscribe(b.Context(), bus.Subject{"events", strconv.Itoa(i)}, 64); err != nil {
			b.Fatal(err)
		}
	}
	subsHeap, subsRSS := footprint(b)
	for b.Loop() {
	}
	b.ReportMetric(busHeap-heap, "heap-KiB")
	b.ReportMetric(busRSS-rss, "rss-KiB")
	b.ReportMetric((subsHeap-busHeap)/1000, "heap-KiB/subscription")
	b.ReportMetric((subsRSS-busRSS)/1000, "rss-KiB/subscription")
}

func benchBus(b *testing.B) (*bus.Bus, *bus.Subscription) {
	b.Helper()
	x, err := bus.Start(b.Context(), bus.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := x.Close(b.Context()); err != nil && b.Context().Err() == nil {
			b.Error(err)
		}
	})
	s, err := x.Subscribe(b.Context(), bus.Subject{"events", "demo"}, 64)
	if err != nil {
		b.Fatal(err)
	}
	return x, s
}

// footprint returns the live heap and the resident set in KiB after a collection.
func footprint(b *testing.B) (heap, rss float64) {
	b.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip("needs /proc")
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(m.HeapAlloc+m.StackInuse) / 1024, float64(pages*os.Getpagesize()) / 1024
}
