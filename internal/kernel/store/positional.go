package store

import (
	"strconv"
	"strings"
)

// positional writes $1, $2, … as ? where they stand in order and once each.
// The SQLite driver finds a numbered parameter's value by comparing its name
// with every number, which a hot statement of a dozen would pay for each time.
func positional(query string) string {
	var b strings.Builder
	for n, rest := 1, query; ; n++ {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		if after[:digits] != strconv.Itoa(n) {
			return query
		}
		b.WriteByte('?')
		rest = after[digits:]
	}
}
