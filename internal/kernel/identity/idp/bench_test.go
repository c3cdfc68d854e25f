package idp

import (
	"testing"

	"provost.dev/provost/internal/kernel/store/storetest"
)

// BenchmarkAuthenticate is what each request pays for its token: one that was
// verified before.
func BenchmarkAuthenticate(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	bearer := w.signIn("demo", "operator", operatorPass).AccessToken
	w.as(bearer)
	b.ReportMetric(float64(len(bearer)), "token-bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Authenticate(b.Context(), bearer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAuthenticateParallel is the same from every core.
func BenchmarkAuthenticateParallel(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	bearer := w.signIn("demo", "operator", operatorPass).AccessToken
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Authenticate(b.Context(), bearer); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkAuthenticateFirst is the first request of a token.
func BenchmarkAuthenticateFirst(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	bearer := w.signIn("demo", "operator", operatorPass).AccessToken
	for b.Loop() {
		w.tokens = newCache[*verified](8)
		if _, err := w.Authenticate(b.Context(), bearer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefresh is a token request without a password.
func BenchmarkRefresh(b *testing.B) {
	w := newWorld(b, storetest.Open(b))
	tokens := w.signIn("demo", "ada", adaPassword)
	for b.Loop() {
		var err error
		if tokens, err = w.refresh(tokens.RefreshToken); err != nil {
			b.Fatal(err)
		}
	}
}
