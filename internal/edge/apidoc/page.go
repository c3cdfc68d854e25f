package apidoc

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template shows, ready to be written.
type page struct {
	Title, Version string
	Description    []string // paragraphs
	Style          template.CSS
	Groups         []pageGroup
	Operations     int
}

type pageGroup struct {
	Name, Doc  string
	Operations []pageOperation
}

type pageOperation struct {
	ID, Method, Path, Summary string
	Permission, Public, Verb  string
	Parameters                []pageParameter
	Request, Limit            string
	Status, Response, Media   string
	Curl                      string
	Failures                  []pageFailure
	Fields, Answer            []pageField
}

type pageParameter struct{ Name, In, Doc string }
type pageFailure struct{ Code, Meaning string }
type pageField struct{ Name, Type, Doc string }

// renderPage writes the page for people, and the Content-Security-Policy it is
// served under: nothing but its own style, which it names by its digest.
func renderPage(doc *document) (html []byte, csp string, err error) {
	p := page{Title: doc.Info.Title, Version: doc.Info.Version, Description: strings.Split(doc.Info.Description, "\n\n"), Style: template.CSS(pageStyle)}
	for _, t := range doc.Tags {
		g := pageGroup{Name: t.Name, Doc: t.Description}
		for path, item := range doc.Paths {
			for method, op := range item {
				if op.Tags[0] != t.Name {
					continue
				}
				shown, err := show(strings.ToUpper(method), path, op)
				if err != nil {
					return nil, "", err
				}
				g.Operations = append(g.Operations, shown)
			}
		}
		slices.SortFunc(g.Operations, func(a, b pageOperation) int {
			return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(methodOrder(a.Method), methodOrder(b.Method)))
		})
		p.Groups = append(p.Groups, g)
		p.Operations += len(g.Operations)
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return nil, "", fmt.Errorf("write documentation page: %w", err)
	}
	sum := sha256.Sum256([]byte(pageStyle))
	return b.Bytes(), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}

// methodOrder is the order of a resource's life.
func methodOrder(method string) int {
	return slices.Index([]string{"POST", "GET", "PUT", "PATCH", "DELETE"}, method)
}

func show(method, path string, op *operation) (pageOperation, error) {
	out := pageOperation{ID: op.ID, Method: method, Path: path, Summary: op.Summary, Permission: op.Permission, Public: op.Public, Verb: op.Verb}
	for _, p := range op.Parameters {
		if p.Ref == "" {
			out.Parameters = append(out.Parameters, pageParameter{p.Name, p.In, p.Description})
		}
	}
	var err error
	if op.RequestBody != nil {
		if out.Request, err = exampleText(op.RequestBody.Content); err != nil {
			return out, err
		}
		out.Limit = op.RequestBody.Description
		out.Fields = fieldsOfBody(op.RequestBody.Content)
	}
	for _, r := range op.Responses {
		if r.Value.Ref != "" {
			out.Failures = append(out.Failures, pageFailure{r.Name, failureDocs[r.Name].meaning})
			continue
		}
		out.Status = r.Name + " " + r.Value.Description
		if len(r.Value.Content) > 0 && r.Value.Content[0].Name != "*/*" {
			out.Media = r.Value.Content[0].Name
		}
		out.Answer = fieldsOfBody(r.Value.Content)
		if out.Response, err = exampleText(r.Value.Content); err != nil {
			return out, err
		}
	}
	out.Curl, err = curl(method, op)
	return out, err
}

// exampleText is the JSON example of a body, "" when it has none.
func exampleText(content dict[media]) (string, error) {
	m, ok := content.get(jsonMedia)
	if !ok || m.Example == nil {
		return "", nil
	}
	b, err := indentedJSON(m.Example)
	return strings.TrimSuffix(string(b), "\n"), err
}

// fieldsOfBody explains a body's fields; of a list's page, those of its items.
func fieldsOfBody(content dict[media]) []pageField {
	m, _ := content.get(jsonMedia)
	s := m.Schema
	for s != nil && s.target != nil {
		s = s.target.body
		if items, ok := s.Properties.get("items"); ok && typeOf(items) == "array" {
			s = items.Items
		}
	}
	if s == nil {
		return nil
	}
	var out []pageField
	for _, p := range s.Properties {
		f := pageField{Name: p.Name, Type: typeText(p.Value), Doc: p.Value.Description}
		if values := p.Value.values(); slices.ContainsFunc(values, func(v string) bool { return !strings.Contains(f.Doc, v) }) {
			f.Doc = strings.TrimSpace(f.Doc + " One of " + strings.Join(values, ", ") + ".")
		}
		if slices.Contains(s.Required, p.Name) && s.Additional == false {
			f.Doc = strings.TrimSpace("Required. " + f.Doc)
		}
		out = append(out, f)
	}
	return out
}

// typeText is a schema's type in words.
func typeText(s *schema) string {
	switch {
	case s.target != nil:
		return "object"
	case typeOf(s) == "array":
		return "list of " + typeText(s.Items)
	case s.any() || typeOf(s) == "":
		return "any"
	case s.Format != "":
		return typeOf(s) + " (" + s.Format + ")"
	}
	return typeOf(s)
}

// values are those of the schema's enum, or of its items'.
func (s *schema) values() []string {
	if typeOf(s) == "array" {
		s = s.Items
	}
	var out []string
	for _, v := range s.Enum {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

// curl is a command line that makes the request.
func curl(method string, op *operation) (string, error) {
	var b strings.Builder
	b.WriteString("curl")
	if op.route.Status == 101 {
		b.WriteString(" --include --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: cHJvdm9zdC1leGFtcGxlIQ=='")
	} else if method != "GET" && (method != "POST" || op.RequestBody == nil) {
		b.WriteString(" -X " + method)
	}
	path := op.route.Path
	for _, p := range op.Parameters {
		if p.In != "path" {
			continue
		}
		value := strings.ToUpper(p.Name)
		for _, pattern := range []string{"{" + p.Name + "}", "{" + p.Name + "...}"} {
			path = strings.ReplaceAll(path, pattern, value)
		}
	}
	b.WriteString(` "$PROVOST_URL` + path + `"`)
	if op.Public == "" {
		b.WriteString(` -H "Authorization: Bearer $PROVOST_TOKEN"`)
	}
	if op.RequestBody != nil {
		m, _ := op.RequestBody.Content.get(jsonMedia)
		body, err := plainJSON(m.Example)
		if err != nil {
			return "", err
		}
		b.WriteString(" -H 'Content-Type: " + jsonMedia + "' -d " + shellQuote(string(body)))
	}
	return b.String(), nil
}

// shellQuote makes s one word for a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Short is the method's class in the page's style.
func (o pageOperation) Short() string { return strings.ToLower(o.Method) }

// Codes lists the failures' statuses.
func (o pageOperation) Codes() string {
	var codes []string
	for _, f := range o.Failures {
		if _, err := strconv.Atoi(f.Code); err == nil {
			codes = append(codes, f.Code)
		}
	}
	return strings.Join(codes, ", ")
}
