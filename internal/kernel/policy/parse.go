package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"provost.dev/provost/internal/kernel"
)

// Limits of what the parsers accept.
const (
	MaxInput      = 1 << 20 // bytes of a recorded request or decision
	maxInputDepth = 16      // nested objects and arrays
	maxSetElement = 10_000  // elements of one set
)

// notText stands for a string that was recorded as null because it was not
// UTF-8. It is not UTF-8 either, so it fits no schema and is written as null again.
const notText = "\xff"

// ParseRequest reads what [Request.AppendJSON] wrote. It takes any member order
// and white space, and nothing else: unknown, repeated or missing members, floats and mixed
// arrays are kernel.Invalid errors. Whether the request fits the schema is for
// Decide to say; only its principal must.
func (s *Schema) ParseRequest(data []byte) (*Request, error) {
	r := &Request{}
	var identity Identity
	var hasPrincipal bool
	err := parseDocument(data, func(d *decoder) error {
		return d.object(map[string]func() error{
			"action":  func() (err error) { r.Action, err = d.text(); return },
			"context": func() (err error) { r.Context, err = d.record(); return },
			"principal": func() (err error) {
				identity, hasPrincipal, err = d.identity()
				return
			},
			"resource": func() error {
				return d.object(map[string]func() error{
					"attrs": func() (err error) { r.Resource.Attributes, err = d.record(); return },
					"id":    func() (err error) { r.Resource.ID, err = d.text(); return },
					"type":  func() (err error) { r.Resource.Type, err = d.text(); return },
				})
			},
		})
	})
	if err != nil {
		return nil, inputError("read decision input", err)
	}
	if hasPrincipal {
		if r.Principal, err = s.NewPrincipal(identity); err != nil {
			return nil, inputError("read decision input", err)
		}
	}
	return r, nil
}

// ParseDecision reads what [Decision.AppendJSON] wrote. Messages of errors are not
// recorded and stay empty.
func ParseDecision(data []byte) (Decision, error) {
	var out Decision
	var failed []string
	var reason string
	err := parseDocument(data, func(d *decoder) error {
		return d.object(map[string]func() error{
			"allow":   func() (err error) { out.Allow, err = d.bool(); return },
			"errors?": func() (err error) { failed, err = d.strings(); return },
			"reason?": func() (err error) { reason, err = d.text(); return },
			"rules":   func() (err error) { out.Rules, err = d.strings(); return },
		})
	})
	if err != nil {
		return Decision{}, inputError("read decision", err)
	}
	out.Reason = Reason(reason)
	for _, id := range failed {
		out.Errors = append(out.Errors, RuleError{Rule: id})
	}
	return out, nil
}

func inputError(op string, err error) error {
	return &kernel.Error{Kind: kernel.Invalid, Code: "DECISION_INPUT_INVALID", Msg: op, Err: err}
}

func parseDocument(data []byte, read func(*decoder) error) error {
	if len(data) > MaxInput {
		return fmt.Errorf("%d bytes, at most %d are read", len(data), MaxInput)
	}
	d := &decoder{dec: jsontext.NewDecoder(bytes.NewReader(data))}
	if err := read(d); err != nil {
		return err
	}
	if _, err := d.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more follows the JSON value")
	}
	return nil
}

// decoder reads the values requests are made of. jsontext sees to syntax, UTF-8
// and repeated names.
type decoder struct {
	dec   *jsontext.Decoder
	depth int
}

func (d *decoder) token(want jsontext.Kind) (jsontext.Token, error) {
	t, err := d.dec.ReadToken()
	if err != nil {
		return t, err
	}
	if t.Kind() != want {
		return t, fmt.Errorf("at %q: got %v, want %v", d.dec.StackPointer(), t.Kind(), want)
	}
	return t, nil
}

// object reads an object with exactly the members given; a name ending in "?"
// may be absent.
func (d *decoder) object(members map[string]func() error) error {
	if _, err := d.token('{'); err != nil {
		return err
	}
	seen := 0
	for d.dec.PeekKind() == '"' {
		t, err := d.dec.ReadToken()
		if err != nil {
			return err
		}
		name := t.String()
		read, ok := members[name]
		if ok {
			seen++
		} else if read, ok = members[name+"?"]; !ok {
			return fmt.Errorf("unknown member %q", name)
		}
		if err := read(); err != nil {
			return fmt.Errorf("member %q: %w", name, err)
		}
	}
	if _, err := d.token('}'); err != nil {
		return err
	}
	for name := range members {
		if name[len(name)-1] != '?' {
			seen--
		}
	}
	if seen < 0 {
		return fmt.Errorf("a member is missing")
	}
	return nil
}

func (d *decoder) bool() (bool, error) {
	t, err := d.dec.ReadToken()
	if err != nil {
		return false, err
	}
	if k := t.Kind(); k != 't' && k != 'f' {
		return false, fmt.Errorf("got %v, want a boolean", k)
	}
	return t.Bool(), nil
}

func (d *decoder) text() (string, error) {
	if d.dec.PeekKind() == 'n' {
		_, err := d.dec.ReadToken()
		return notText, err
	}
	t, err := d.token('"')
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

func (d *decoder) strings() ([]string, error) {
	if _, err := d.token('['); err != nil {
		return nil, err
	}
	out := []string{}
	for d.dec.PeekKind() != ']' {
		t, err := d.token('"')
		if err != nil {
			return nil, err
		}
		if len(out) == maxSetElement {
			return nil, fmt.Errorf("more than %d elements", maxSetElement)
		}
		out = append(out, t.String())
	}
	_, err := d.token(']')
	return out, err
}

// record reads an object as a Record. Null stands for one that had no canonical
// form; what it becomes fits no schema.
func (d *decoder) record() (Record, error) {
	v, err := d.value()
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case Record:
		return v, nil
	case nil:
		return Record{notText: nil}, nil
	}
	return nil, fmt.Errorf("want an object")
}

func (d *decoder) value() (any, error) {
	switch k := d.dec.PeekKind(); k {
	case 'n':
		_, err := d.dec.ReadToken()
		return nil, err
	case 't', 'f':
		return d.bool()
	case '"':
		return d.text()
	case '0':
		t, err := d.dec.ReadToken()
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(t.String(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("number %s: want a 64-bit integer", t)
		}
		return n, nil
	case '[':
		return d.strings()
	}
	if d.depth++; d.depth > maxInputDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxInputDepth)
	}
	defer func() { d.depth-- }()
	return d.members()
}

// members reads an object whose names are not known beforehand.
func (d *decoder) members() (any, error) {
	if _, err := d.token('{'); err != nil {
		return nil, err
	}
	rec := Record{}
	for d.dec.PeekKind() == '"' {
		t, err := d.dec.ReadToken()
		if err != nil {
			return nil, err
		}
		name := t.String()
		if rec[name], err = d.value(); err != nil {
			return nil, fmt.Errorf("member %q: %w", name, err)
		}
	}
	if _, err := d.token('}'); err != nil {
		return nil, err
	}
	if _, ok := rec["__extn"]; ok {
		return extension(rec)
	}
	return rec, nil
}

// extension reads the escape which appendExtension writes.
func extension(rec Record) (any, error) {
	inner, ok := rec["__extn"].(Record)
	if !ok || len(rec) != 1 || len(inner) != 2 {
		return nil, fmt.Errorf(`"__extn" wants {"arg":…,"fn":…} and stands alone`)
	}
	arg, _ := inner["arg"].(string)
	switch inner["fn"] {
	case "datetime":
		return types.ParseDatetime(arg)
	case "decimal":
		return types.ParseDecimal(arg)
	case "ip":
		ip, err := types.ParseIPAddr(arg)
		return netip.Prefix(ip), err
	}
	return nil, fmt.Errorf("unknown extension function %v", inner["fn"])
}

// identity reads a principal; false says it was null.
func (d *decoder) identity() (id Identity, ok bool, err error) {
	if d.dec.PeekKind() == 'n' {
		_, err := d.dec.ReadToken()
		return id, false, err
	}
	var attrs Record
	err = d.object(map[string]func() error{
		"attrs": func() (err error) { attrs, err = d.record(); return },
		"id":    func() (err error) { id.ID, err = d.text(); return },
		"type":  func() (err error) { id.Type, err = d.text(); return },
	})
	if err != nil {
		return id, false, err
	}
	for name, dst := range map[string]*string{"tenant": &id.Tenant, "name": &id.Name, "kind": &id.Kind} {
		if *dst, ok = attrs[name].(string); !ok {
			return id, false, fmt.Errorf("principal attribute %q: want a string", name)
		}
		delete(attrs, name)
	}
	for name, dst := range map[string]*[]string{"roles": &id.Roles, "permissions": &id.Permissions, "groups": &id.Groups} {
		if *dst, ok = attrs[name].([]string); !ok {
			return id, false, fmt.Errorf("principal attribute %q: want an array of strings", name)
		}
		delete(attrs, name)
	}
	id.Attributes = attrs
	return id, true, nil
}
