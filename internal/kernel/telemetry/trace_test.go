package telemetry

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is an OTLP/HTTP collector on loopback that keeps what it gets.
type receiver struct {
	*httptest.Server
	got chan *collector.ExportTraceServiceRequest
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan *collector.ExportTraceServiceRequest, 64)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("export to %s as %s", req.URL.Path, req.Header.Get("Content-Type"))
		}
		var body io.Reader = req.Body
		if req.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(body); err != nil {
				t.Error(err)
				return
			}
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
			return
		}
		msg := &collector.ExportTraceServiceRequest{}
		if err := proto.Unmarshal(b, msg); err != nil {
			t.Error(err)
			return
		}
		r.got <- msg
	}))
	t.Cleanup(r.Close)
	return r
}

// spans returns what has arrived, by name, with the resource's attributes.
func (r *receiver) spans(t *testing.T) (map[string]*spans.Span, map[string]string) {
	t.Helper()
	byName, res := map[string]*spans.Span{}, map[string]string{}
	for {
		select {
		case msg := <-r.got:
			for _, rs := range msg.ResourceSpans {
				for _, a := range rs.Resource.Attributes {
					res[a.Key] = a.Value.GetStringValue()
				}
				for _, ss := range rs.ScopeSpans {
					for _, s := range ss.Spans {
						byName[s.Name] = s
					}
				}
			}
		default:
			return byName, res
		}
	}
}

// attributes are a span's strings and numbers.
func attributes(s *spans.Span) map[string]any {
	out := map[string]any{}
	for _, a := range s.GetAttributes() {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			out[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			out[a.Key] = v.IntValue
		}
	}
	return out
}

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
)

func TestRequestsAreTraced(t *testing.T) {
	rec := newReceiver(t)
	tel, log := start(t, Config{OTLPEndpoint: rec.URL, Version: "1.2.3", LogFormat: "json"})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/tenants/{id}", func(w http.ResponseWriter, r *http.Request) {
		tel.Logger.InfoContext(r.Context(), "inside")
		w.WriteHeader(http.StatusTeapot)
	})
	mux.HandleFunc("GET /boom", func(http.ResponseWriter, *http.Request) { panic("boom") })
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	var pattern string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as edge's frame
		r = r.WithContext(WithCorrelation(r.Context(), "c-1"))
		defer func() {
			recover() //nolint:errcheck // what is tested is the span
			pattern = r.Pattern
		}()
		tel.Middleware(mux).ServeHTTP(w, r)
	})
	for _, flags := range []string{"01", "00"} { // a caller's sampling flag does not decide
		r := httptest.NewRequest("GET", "/v1/tenants/demo?token=hidden", nil)
		r.Header.Set("Traceparent", "00-"+callersTrace+"-"+callersSpan+"-"+flags)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusTeapot {
			t.Fatalf("status %d", w.Code)
		}
		if pattern != "GET /v1/tenants/{id}" {
			t.Errorf("outside the middleware the pattern is %q", pattern)
		}
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/boom", nil))
	if pattern != "GET /boom" {
		t.Errorf("after a panic the pattern is %q", pattern)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/healthz", nil))
	if pattern != "GET /healthz" {
		t.Errorf("of a request that is not traced the pattern is %q", pattern)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	got, res := rec.spans(t)
	if res["service.name"] != "provost" || res["service.version"] != "1.2.3" || res["service.instance.id"] == "" {
		t.Errorf("resource is %v", res)
	}
	s := got["GET /v1/tenants/{id}"]
	if s == nil || len(got) != 2 {
		t.Fatalf("spans %v, want one named after the route and one of the panic", got)
	}
	if hex.EncodeToString(s.TraceId) != callersTrace || hex.EncodeToString(s.ParentSpanId) != callersSpan || s.Kind != spans.Span_SPAN_KIND_SERVER {
		t.Errorf("span %v does not continue the caller's trace as a server", s)
	}
	a := attributes(s)
	if a["correlation_id"] != "c-1" || a["http.route"] != "/v1/tenants/{id}" || a["http.response.status_code"] != int64(418) {
		t.Errorf("attributes are %v", a)
	}
	for k, v := range a {
		if text, ok := v.(string); ok && strings.Contains(text, "hidden") {
			t.Errorf("attribute %s holds the query: %v", k, v)
		}
	}
	if !strings.Contains(log.String(), `"trace_id":"`+callersTrace+`"`) {
		t.Errorf("the log line has no trace id: %s", log)
	}
}

// The middleware's ResponseWriter still streams and still gives up its connection.
func TestTracedRequestsStreamAndHijack(t *testing.T) {
	rec := newReceiver(t)
	tel, _ := start(t, Config{OTLPEndpoint: rec.URL})
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first\n") //nolint:errcheck // seen by the reader
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-release
	})
	mux.HandleFunc("GET /hijack", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n") //nolint:errcheck // seen by the reader
	})
	srv := httptest.NewServer(tel.Middleware(mux))
	defer srv.Close()

	resp, err := http.Get(srv.URL + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	close(release)
	resp.Body.Close()
	if line != "first\n" {
		t.Errorf("streamed %q, %v before the handler ended", line, err)
	}

	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n") //nolint:errcheck // seen by the reader
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "HTTP/1.1 101 Switching Protocols\r\n" {
		t.Errorf("hijacked connection says %q, %v", line, err)
	}
}

func TestSampleRatio(t *testing.T) {
	rec := newReceiver(t)
	tel, _ := start(t, Config{OTLPEndpoint: rec.URL, SampleRatio: 1e-9})
	h := tel.Middleware(http.NewServeMux())
	for range 50 {
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header.Set("Traceparent", "00-"+callersTrace+"-"+callersSpan+"-01")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := rec.spans(t); len(got) != 0 {
		t.Errorf("%d spans were sent though hardly any should be", len(got))
	}
}
