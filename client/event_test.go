package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readAll returns every message of a stream as "kind|data|lastID".
func readAll(r io.Reader) (out []string, err error) {
	in := newEventReader(r)
	for {
		m, err := in.next()
		if err != nil {
			return out, err
		}
		out = append(out, m.kind+"|"+string(m.data)+"|"+in.lastID)
	}
}

func TestEventStreamSyntax(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []string
	}{
		{"plain", "data: a\n\ndata: b\n\n", []string{"|a|", "|b|"}},
		{"ends of lines", "data: a\r\rdata: b\r\n\r\ndata: c\n\n", []string{"|a|", "|b|", "|c|"}},
		{"many lines of data", "data: a\ndata:\ndata: b\n\n", []string{"|a\n\nb|"}},
		{"kinds do not carry over", "event: x\ndata: a\n\ndata: b\n\n", []string{"x|a|", "|b|"}},
		{"ids do", "id: 7\ndata: a\n\ndata: b\n\n", []string{"|a|7", "|b|7"}},
		{"an id can be taken back", "id: 7\ndata: a\n\nid\ndata: b\n\n", []string{"|a|7", "|b|"}},
		{"ids with NUL do not count", "id: 7\ndata: a\n\nid: 8\x00\ndata: b\n\n", []string{"|a|7", "|b|7"}},
		{"comments and unknown fields", ": hello\ncolour: red\ndata: a\n\n: beat\n\n", []string{"|a|"}},
		{"nothing without data", "event: x\nid: 9\n\ndata: a\n\n", []string{"|a|9"}},
		{"only one space is taken", "data:  a\n\ndata:b\n\n", []string{"| a|", "|b|"}},
		{"byte order mark", "\ufeffdata: a\n\n", []string{"|a|"}},
		{"cut off", "data: a\n\ndata: b\n", []string{"|a|"}},
		{"empty", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readAll(strings.NewReader(tc.in))
			if !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestEventStreamMessagesHaveALargestSize(t *testing.T) {
	for name, in := range map[string]string{"one line": "data: " + strings.Repeat("x", maxMessage), "many": strings.Repeat("data: x\n", maxMessage/6)} {
		if _, err := readAll(strings.NewReader(in)); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	small := strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n\n", 3000)
	if got, err := readAll(strings.NewReader(small)); len(got) != 3000 || !errors.Is(err, io.EOF) {
		t.Errorf("many small messages: %d, %v", len(got), err)
	}
}

func FuzzEventReader(f *testing.F) {
	for _, s := range []string{"data: a\r\n\r\n", "id: 1\nretry: 10\ndata\n\n", "\ufeff:x\n\n", "event: error\ndata: {}\n\n", "\r\r\n\n", "data: \xff\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := readAll(bytes.NewReader(in))
		if err == nil {
			t.Fatal("a stream without an end")
		}
		// How the bytes arrive must not matter.
		pieces, _ := readAll(iotest.OneByteReader(bytes.NewReader(in)))
		if d := cmp.Diff(whole, pieces); d != "" {
			t.Errorf("in one piece and in many:\n%s", d)
		}
	})
}

// TestStreamResumes breaks the stream in every way that is not final and
// checks that each event comes once, in order.
func TestStreamResumes(t *testing.T) {
	var asked []string
	c, w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		last := r.Header.Get("Last-Event-ID")
		asked = append(asked, last)
		if r.URL.Query().Get("outcome") != "refused" {
			t.Errorf("filter lost: %s", r.URL.RawQuery)
		}
		emit := func(n int) { fmt.Fprintf(rw, "id: %d\ndata: {\"sequence\":%d}\n\n", n, n) }
		switch len(asked) {
		case 1: // ends between events
			io.WriteString(rw, "retry: 4000\n\n: hello\n\n")
			emit(1)
			emit(2)
		case 2: // ends within one
			emit(3)
			io.WriteString(rw, "id: 4\ndata: {\"seq")
		case 3: // the server restarts
			rw.Header().Set("Retry-After", "9")
			rw.WriteHeader(http.StatusServiceUnavailable)
		case 4: // it drains
			io.WriteString(rw, "event: error\ndata: {\"code\":\"ECS_UNAVAILABLE\",\"message\":\"draining\"}\n\n")
		case 5: // the connection breaks
			emit(4)
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			rw.WriteHeader(http.StatusForbidden)
		}
	}, Options{Retries: -1})
	var lost []string
	var got []int64
	var end error
	for e, err := range c.Events.Stream(t.Context(), Follow{Filter: EventFilter{Outcome: "refused"}, LastEventID: "0",
		Lost: func(err error, _ time.Duration) { lost = append(lost, err.Error()) }}) {
		if err != nil {
			end = err
			break
		}
		got = append(got, e.Sequence)
	}
	if d := cmp.Diff([]int64{1, 2, 3, 4}, got); d != "" {
		t.Errorf("events -want +got:\n%s", d)
	}
	if d := cmp.Diff([]string{"0", "2", "3", "3", "3", "4"}, asked); d != "" {
		t.Errorf("Last-Event-ID -want +got:\n%s", d)
	}
	if asError(t, end).Status != http.StatusForbidden {
		t.Errorf("ended with %v", end)
	}
	if len(lost) != 5 || len(w.all) != 5 {
		t.Errorf("told of %q, waited %v", lost, w.all)
	}
	if w.all[0] < 2*time.Second || w.all[0] > 4*time.Second || w.all[2] != 9*time.Second {
		t.Errorf("waited %v, want what the server asked for", w.all)
	}
}

func TestStreamThatNeverOpenedIsNotRetried(t *testing.T) {
	n := 0
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		w.WriteHeader(http.StatusServiceUnavailable)
	}, Options{Retries: -1})
	_, err := collect(c.Events.Stream(t.Context(), Follow{}))
	if asError(t, err).Status != http.StatusServiceUnavailable || n != 1 {
		t.Errorf("%v after %d requests", err, n)
	}
}

func TestStreamEndsWithItsContextAndItsCaller(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "id: 1\ndata: {\"sequence\":1}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, Options{})
	for range c.Events.Stream(t.Context(), Follow{}) {
		break // must return and free the connection: the server's Close waits for it
	}
}

func TestFiltersBecomeQueries(t *testing.T) {
	f := EventFilter{Tenant: "demo", Type: "a.b", Outcome: "refused", Actor: "x@demo", ResourceID: "workload/1", CorrelationID: "c",
		From: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600)), FromSequence: 2, ToSequence: 9, PageSize: 10}
	want := "actor=x%40demo&correlation_id=c&event_type=a.b&from=2026-01-02T02%3A04%3A05.000006Z&from_sequence=2&limit=10&outcome=refused&resource_id=workload%2F1&tenant=demo&to_sequence=9"
	if got := f.query().Encode(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := (EventFilter{}).query().Encode(); got != "" {
		t.Errorf("no filter is %q", got)
	}
}

func TestEvidenceIsCheckedAgainstItsPointer(t *testing.T) {
	body := "{}\n"
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) }, Options{})
	const pointer = "eosc://evidence/sha256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
	if b, err := c.Events.Evidence(t.Context(), pointer); err != nil || string(b) != body {
		t.Errorf("%q, %v", b, err)
	}
	body = "{ }\n"
	if _, err := c.Events.Evidence(t.Context(), pointer); !errors.Is(err, ErrUnverified) {
		t.Errorf("changed bytes: %v", err)
	}
	for _, bad := range []string{"", "eosc://evidence/", "eosc://evidence/sha256:00", "https://x/sha256:00", "eosc://evidence/../../v1/users"} {
		if _, err := c.Events.Evidence(t.Context(), bad); err == nil || asError(t, err).Code != CodeInvalid {
			t.Errorf("pointer %q: %v", bad, err)
		}
	}
}
