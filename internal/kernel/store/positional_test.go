package store

import "testing"

func TestPositional(t *testing.T) {
	for in, want := range map[string]string{
		"SELECT 1":                            "SELECT 1",
		"INSERT INTO t VALUES ($1, $2)":       "INSERT INTO t VALUES (?, ?)",
		"SELECT a FROM t WHERE x=$1 AND y=$1": "SELECT a FROM t WHERE x=$1 AND y=$1",
		"UPDATE t SET a = $2 WHERE b = $1":    "UPDATE t SET a = $2 WHERE b = $1",
		"SELECT $1, $3":                       "SELECT $1, $3",
		"SELECT '$' || $1":                    "SELECT '$' || $1",
	} {
		if got := positional(in); got != want {
			t.Errorf("positional(%q) = %q, want %q", in, got, want)
		}
	}
}
