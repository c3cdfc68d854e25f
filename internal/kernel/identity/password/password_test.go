package password

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"provost.dev/provost/internal/kernel"
)

// cheap is a cost for tests of everything but the cost.
func cheap(concurrent, queue int) *Hasher {
	return New(Config{MemoryKiB: 64, Passes: 1, Concurrent: concurrent, Queue: queue})
}

func TestVerify(t *testing.T) {
	h := cheap(2, 0)
	kept, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, kept, password string
		want                 bool
	}{
		{"right", kept, "correct horse", true},
		{"wrong", kept, "correct hors", false},
		{"empty", kept, "", false},
		{"nobody", "", "correct horse", false},
		{"garbage kept", "$argon2id$v=19$m=64", "correct horse", false},
		{"plain text kept", "correct horse", "correct horse", false},
		{"endless password", kept, strings.Repeat("x", 1<<20), false},
	} {
		ok, stale, err := h.Verify(t.Context(), c.kept, c.password)
		if err != nil || ok != c.want || stale {
			t.Errorf("%s: got %v, stale %v, %v, want %v", c.name, ok, stale, err, c.want)
		}
	}
	again, err := h.Hash(t.Context(), "correct horse")
	if err != nil || again == kept {
		t.Errorf("the same password hashed twice gave %q, %v: want another salt", again, err)
	}
}

func TestPasswordsBeyondTheLimitNeverMatch(t *testing.T) {
	h := cheap(1, 0)
	long := strings.Repeat("x", MaxLength)
	kept, err := h.Hash(t.Context(), long)
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := h.Verify(t.Context(), kept, long); !ok || err != nil {
		t.Errorf("the longest password: got %v, %v, want a match", ok, err)
	}
	if ok, _, err := h.Verify(t.Context(), kept, long+"y"); ok || err != nil {
		t.Errorf("one byte more: got %v, %v, want no match", ok, err)
	}
}

func TestOtherCostIsStale(t *testing.T) {
	kept, err := cheap(1, 0).Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	h := New(Config{MemoryKiB: 128, Passes: 1})
	if ok, stale, err := h.Verify(t.Context(), kept, "correct horse"); !ok || !stale || err != nil {
		t.Errorf("got %v, stale %v, %v, want a stale match", ok, stale, err)
	}
	if ok, stale, err := h.Verify(t.Context(), kept, "wrong horse"); ok || stale || err != nil {
		t.Errorf("got %v, stale %v, %v: a wrong password must not ask for a new hash", ok, stale, err)
	}
}

func TestVerifyIsBounded(t *testing.T) {
	h := cheap(1, 1)
	h.slots <- struct{}{} // someone is being checked
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error)
	go func() {
		_, _, err := h.Verify(ctx, "", "x")
		second <- err
	}()
	for h.waiting.Load() != 1 {
		runtime.Gosched() // until the second stands in the queue
	}
	if _, _, err := h.Verify(t.Context(), "", "x"); err == nil || kernel.KindOf(err) != kernel.TooMany {
		t.Errorf("third: got %v, want kernel.TooMany", err)
	}
	cancel()
	if err := <-second; err == nil || kernel.KindOf(err) != kernel.Unavailable {
		t.Errorf("second, after its request ended: got %v, want kernel.Unavailable", err)
	}
	h.leave()
	if _, _, err := h.Verify(t.Context(), "", "x"); err != nil {
		t.Errorf("after all left: %v", err)
	}
}

// An unknown user must cost what a wrong password costs. Wall time on a busy
// machine is noise, so the work itself is compared: the parameters used.
func TestNobodyCostsTheSame(t *testing.T) {
	h := New(Config{})
	kept, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	have, err := parse(kept)
	if err != nil {
		t.Fatal(err)
	}
	if have.params != h.absent.params || len(have.salt) != len(h.absent.salt) || len(have.key) != len(h.absent.key) {
		t.Errorf("got %+v for nobody, want the shape of %+v", h.absent, have)
	}
	if want := (params{memory: 19456, passes: 2, lanes: 1}); have.params != want {
		t.Errorf("production cost is %+v, want %+v", have.params, want)
	}
}

func TestParse(t *testing.T) {
	const salt, key = "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	good := "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + key
	if h, err := parse(good); err != nil || h.String() != good {
		t.Fatalf("got %v, %v, want %s back", h, err, good)
	}
	for _, bad := range []string{
		"", "$", "$$$$$", "argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + key,
		"$argon2i$v=19$m=19456,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=16$m=19456,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=4294967295,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=19456,t=4294967295,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=0,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$t=2,m=19456,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=19456,t=2,p=1$$" + key,
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$",
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "=$" + key,
		good + "$", good + strings.Repeat("A", 512),
	} {
		if h, err := parse(bad); err == nil {
			t.Errorf("parse(%q) = %v, want an error", bad, h)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=64,t=1,p=8$AAAAAAAAAAA$AAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=,t=,p=$$")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parse(s)
		if err != nil {
			return
		}
		if h.params.memory > maxMemory || h.params.passes > maxPasses || h.params.lanes > maxLanes || len(h.key) > maxBytes {
			t.Errorf("parse(%q) passed its limits: %+v", s, h)
		}
		back, err := parse(h.String())
		if err != nil || back.String() != h.String() {
			t.Errorf("parse(%q) does not survive writing: %v", s, err)
		}
	})
}

// BenchmarkVerify is the cost of one sign-in with a password.
func BenchmarkVerify(b *testing.B) {
	h := New(Config{})
	for b.Loop() {
		if _, _, err := h.Verify(b.Context(), "", "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}
