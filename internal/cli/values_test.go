package cli

import (
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "64Mi": 64 << 20, "1.5Gi": 3 << 29, "500M": 500e6, "2k": 2000, "1Ti": 1 << 40, "0.5Ki": 512} {
		if got, err := parseBytes(s); err != nil || got != want {
			t.Errorf("parseBytes(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "-1", "Mi", "64 Mi", "1.2.3", "1e3", "9999999Ti", "0.3", "1.", ".5Gi", "64MiB", "0.0000000001Ti"} {
		if got, err := parseBytes(s); err == nil {
			t.Errorf("parseBytes(%q) = %d", s, got)
		}
	}
}

func TestCPU(t *testing.T) {
	for s, want := range map[string]int64{"500m": 500, "2": 2000, "0.5": 500, "1.25": 1250, "1m": 1} {
		if got, err := parseCPU(s); err != nil || got != want {
			t.Errorf("parseCPU(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "m", "0.0001", "1.5m", "-1", "two", "99999999999999999999"} {
		if got, err := parseCPU(s); err == nil {
			t.Errorf("parseCPU(%q) = %d", s, got)
		}
	}
}

func TestAges(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{"7d": 7 * day, "2w": 14 * day, "1w2d3h": 9*day + 3*time.Hour, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "0s": 0} {
		if got, err := parseAge(s); err != nil || got != want {
			t.Errorf("parseAge(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "d", "7", "-1h", "1.5d", "1d2w", "99999999d", "1y", "d7"} {
		if got, err := parseAge(s); err == nil {
			t.Errorf("parseAge(%q) = %v", s, got)
		}
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{"2026-01-02T03:04:05+02:00": "2026-01-02T01:04:05Z", "2026-01-02": "2026-01-02T00:00:00Z", "7d": "2026-05-25T12:00:00Z"} {
		if got, err := parseTime(s, now); err != nil || formatTime(got) != want {
			t.Errorf("parseTime(%q) = %v, %v, want %s", s, got, err, want)
		}
	}
	if _, err := parseTime("2026-13-01", now); err == nil {
		t.Error("a thirteenth month")
	}
}

func TestSizesForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 64 << 20: "64.0 MiB", 5 << 40: "5.0 TiB", 1 << 62: "4194304.0 TiB"} {
		if got := formatBytes(n); got != want {
			t.Errorf("formatBytes(%d) = %s, want %s", n, got, want)
		}
	}
}

func FuzzQuantities(f *testing.F) {
	for _, s := range []string{"64Mi", "0.5", "500m", "1w2d", "9223372036854775807", "1.000000001Ti", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseBytes(s); err == nil && n <= 0 {
			t.Errorf("parseBytes(%q) = %d", s, n)
		}
		if n, err := parseCPU(s); err == nil && n <= 0 {
			t.Errorf("parseCPU(%q) = %d", s, n)
		}
		if d, err := parseAge(s); err == nil && d < 0 {
			t.Errorf("parseAge(%q) = %v", s, d)
		}
	})
}
