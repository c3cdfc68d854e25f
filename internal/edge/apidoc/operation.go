package apidoc

import (
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"provost.dev/provost/internal/kernel/route"
)

const (
	jsonMedia = "application/json"
	formMedia = "application/x-www-form-urlencoded"
)

// describer describes one route after another, gathering what they share.
type describer struct {
	info      Info
	refl      *reflector
	responses map[string]*answer // by name, such as Interop404
}

// operation describes a route.
func (d *describer) operation(r route.Route) (*operation, error) {
	if r.Summary == "" {
		return nil, fmt.Errorf("has no summary")
	}
	op := &operation{ID: operationID(r.Method, r.Path), Summary: r.Summary, Tags: []string{tagOf(r.Path)}, Verb: r.Verb, Public: r.Public,
		Parameters: parameters(r), route: r}
	if r.Public != "" {
		open := []map[string][]string{}
		if signsIn(r) { // a client may show its secret by HTTP Basic (RFC 6749 §2.3.1), or in the body
			open = append(open, map[string][]string{}, map[string][]string{"basic": {}})
		}
		op.Security = &open
	}
	if d.info.Schema != nil && r.Verb != "" {
		a, ok := d.info.Schema.Action(r.Verb)
		if !ok {
			return nil, fmt.Errorf("verb %q is not in the policy schema", r.Verb)
		}
		op.Permission = a.Permission
	}
	if r.In != nil {
		in, err := d.refl.schemaOf(reflect.TypeOf(r.In), request)
		if err != nil {
			return nil, err
		}
		op.RequestBody = &requestBody{Description: "At most " + byteSize(maxBody(r)) + ".", Required: true, Content: dict[media]{{jsonMedia, media{Schema: in}}}}
		if signsIn(r) {
			op.RequestBody.Content = append(op.RequestBody.Content, entry[media]{formMedia, media{Schema: in}})
		}
	}
	success, err := d.success(r)
	if err != nil {
		return nil, err
	}
	op.Responses = dict[*answer]{{strconv.Itoa(statusOf(r)), success}}
	for _, code := range failures(r) {
		a, err := d.failure(r.Family, code)
		if err != nil {
			return nil, err
		}
		op.Responses = append(op.Responses, entry[*answer]{code, a})
	}
	return op, nil
}

// signsIn reports whether a route takes credentials in its body.
func signsIn(r route.Route) bool {
	return r.Public != "" && r.In != nil && strings.HasSuffix(r.Path, "/token")
}

func statusOf(r route.Route) int {
	if r.Status == 0 {
		return http.StatusOK
	}
	return r.Status
}

func maxBody(r route.Route) int64 {
	if r.MaxBody == 0 {
		return 1 << 20
	}
	return r.MaxBody
}

func byteSize(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

func parameters(r route.Route) []parameter {
	var out []parameter
	for _, segment := range strings.Split(r.Path, "/") {
		name, ok := parameterName(segment)
		if !ok || name == "$" {
			continue
		}
		p := parameter{Name: name, In: "path", Required: true, Schema: &schema{Type: "string"}}
		if w := vocabulary[name]; w.doc != "" {
			p.Description = w.doc
			if s, ok := w.example.(string); ok {
				p.Schema.Examples = []any{s}
			}
		}
		if strings.HasSuffix(segment, "...}") {
			p.Description = strings.TrimPrefix(p.Description+"; may hold slashes", "; ")
		}
		out = append(out, p)
	}
	for _, q := range r.Query {
		out = append(out, parameter{Name: q.Name, In: "query", Description: q.Doc, Schema: querySchema(q.Name)})
	}
	return append(out, parameter{Ref: "#/components/parameters/CorrelationID"})
}

// querySchema is what a query parameter of this name takes, wherever it is: the
// names are those of route.Call's readers.
func querySchema(name string) *schema {
	number := func(lo, hi int64) *schema {
		return &schema{Type: "integer", Format: "int64", Minimum: &lo, Maximum: &hi}
	}
	switch name {
	case "limit":
		s := number(1, 1<<31)
		s.Default = route.DefaultLimit
		return s
	case "from_sequence", "to_sequence":
		return number(0, 1<<40-1)
	}
	return &schema{Type: "string"}
}

// success describes the answer of a request that went well.
func (d *describer) success(r route.Route) (*answer, error) {
	status := statusOf(r)
	a := &answer{Description: http.StatusText(status), Headers: commonHeaders()}
	if (r.Verb != "" || signsIn(r)) && r.Method != http.MethodGet {
		a.Headers = append(a.Headers, headerRef("X-Event-ID"), headerRef("X-Evidence-Pointer"))
	}
	if status == http.StatusCreated {
		a.Headers = append(a.Headers, headerRef("Location"))
	}
	if status == http.StatusNoContent || status == http.StatusSwitchingProtocols {
		return a, nil
	}
	if raw, ok := r.Out.(route.Raw); ok {
		a.Content = dict[media]{{raw.ContentType, media{Schema: &schema{Type: "string"}}}}
		if strings.HasPrefix(raw.ContentType, jsonMedia) {
			a.Content[0].Value.Schema = &schema{}
		}
		return a, nil
	}
	if r.Out == nil {
		a.Content = dict[media]{{"*/*", media{}}}
		return a, nil
	}
	out, err := d.refl.schemaOf(reflect.TypeOf(r.Out), response)
	a.Content = dict[media]{{jsonMedia, media{Schema: out}}}
	return a, err
}

// failures are the statuses that a route can answer with when it does not go
// well, and "default" for what else may come.
func failures(r route.Route) []string {
	var out []string
	add := func(when bool, codes ...string) {
		if when {
			out = append(out, codes...)
		}
	}
	protected := r.Public == "" || signsIn(r)
	addressed := strings.Contains(r.Path, "{")
	add(r.In != nil || len(r.Query) > 0 || addressed, "400")
	add(protected, "401", "403")
	add(addressed || len(r.Query) > 0, "404")
	add(r.Public == "" && r.Method != http.MethodGet, "409")
	add(r.In != nil, "413", "415")
	add(true, "429", "500", "503", "default")
	return out
}

// failure returns a reference to a family's answer with this status.
func (d *describer) failure(f route.Family, code string) (*answer, error) {
	switch f {
	case route.Interop, route.Task, route.OAuth:
	default:
		return nil, fmt.Errorf("family %q is not known here", f)
	}
	name := title(string(f)) + title(code)
	if d.responses[name] == nil {
		d.responses[name] = errorAnswer(f, code)
	}
	return &answer{Ref: "#/components/responses/" + name}, nil
}
