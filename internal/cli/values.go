package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// units of quantities: binary as in "64Mi", decimal as in "64M".
var units = []struct {
	suffix string
	factor int64
}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1}}

// parseBytes reads a size such as "64Mi", "1.5G" or "1048576".
func parseBytes(s string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		if n, ok := scaled(digits, u.factor); ok && n > 0 {
			return n, nil
		}
		break
	}
	return 0, fmt.Errorf("%q is not a size such as 64Mi, 1.5Gi or 500M", s)
}

// parseCPU reads processor time in thousandths of a core: "500m", "0.5" or "2".
func parseCPU(s string) (int64, error) {
	digits, milli := strings.CutSuffix(s, "m")
	factor := int64(1000)
	if milli {
		factor = 1
	}
	if n, ok := scaled(digits, factor); ok && n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%q is not an amount of processor such as 500m, 0.5 or 2", s)
}

// scaled is the decimal number digits times factor, when that is a whole
// number within range.
func scaled(digits string, factor int64) (int64, bool) {
	whole, fraction, _ := strings.Cut(digits, ".")
	if whole == "" || len(fraction) > 9 || strings.ContainsFunc(whole+fraction, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return 0, false
	}
	n *= factor
	if fraction == "" {
		return n, !strings.HasSuffix(digits, ".")
	}
	f, err := strconv.ParseFloat("0."+fraction, 64)
	if err != nil {
		return 0, false
	}
	part := f * float64(factor)
	rest := int64(math.Round(part))
	if math.Abs(part-float64(rest)) > 1e-3 || n > math.MaxInt64-rest {
		return 0, false
	}
	return n + rest, true
}

// parseAge reads how long ago something was: Go's durations and days "7d" and
// weeks "2w" before them.
func parseAge(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not an age such as 30m, 12h, 7d or 2w", s)
	var total time.Duration
	rest := s
	for _, u := range []struct {
		suffix string
		unit   time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		n, after, ok := strings.Cut(rest, u.suffix)
		if !ok {
			continue
		}
		count, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, bad
		}
		total += time.Duration(count) * u.unit
		rest = after
	}
	if rest == "" && s != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-total {
		return 0, bad
	}
	return total + d, nil
}

// parseTime reads a point in time: RFC 3339, a date, or an age before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	age, err := parseAge(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time such as 2026-01-02T15:04:05Z, 2026-01-02 or 7d", s)
	}
	return now.Add(-age).UTC(), nil
}

// optionalTime is parseTime for a flag that may be empty.
func (p *program) optionalTime(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := parseTime(s, p.now())
	if err != nil {
		return t, usagef("--%s: %w", flag, err)
	}
	return t, nil
}

// parsePairs reads "name=value" arguments of a flag.
func parsePairs(flag string, pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(pairs))
	for _, kv := range pairs {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usagef("--%s: %q is not NAME=VALUE", flag, kv)
		}
		if _, twice := out[k]; twice {
			return nil, usagef("--%s: %s is given twice", flag, k)
		}
		out[k] = v
	}
	return out, nil
}

// parseValues is parsePairs for JSON values: what is not JSON is a string.
func parseValues(flag string, pairs []string) (map[string]any, error) {
	m, err := parsePairs(flag, pairs)
	if err != nil || m == nil {
		return nil, err
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
		if json.Valid([]byte(v)) {
			out[k] = json.RawMessage(v)
		}
	}
	return out, nil
}

// parseCounts is parsePairs for whole numbers.
func parseCounts(flag string, pairs []string) (map[string]int64, error) {
	m, err := parsePairs(flag, pairs)
	if err != nil || m == nil {
		return nil, err
	}
	out := make(map[string]int64, len(m))
	for k, v := range m {
		n, err := parseBytes(v)
		if v == "0" {
			n, err = 0, nil
		}
		if err != nil {
			return nil, usagef("--%s: %s: %w", flag, k, err)
		}
		out[k] = n
	}
	return out, nil
}

// formatBytes is n as a person reads it.
func formatBytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		f /= unit
		if f < unit || u == "TiB" {
			return fmt.Sprintf("%.1f %s", f, u)
		}
	}
	return ""
}

// formatTime is t in UTC to the second; "" when there is none.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
