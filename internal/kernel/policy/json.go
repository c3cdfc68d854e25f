package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
)

// AppendJSON appends the canonical JSON of the request to dst:
//
//	{"action":"workload.create","context":{…},
//	 "principal":{"attrs":{…},"id":"ada","type":"User"},
//	 "resource":{"attrs":{…},"id":"web-1","type":"Workload"}}
//
// without the white space. What has no canonical form (a Go type not listed at
// [Scalar], text that is not UTF-8) is written as null, and [Schema.ParseRequest] reads null
// as something that does not fit either: such a request is denied in replay as it was at first.
func (r *Request) AppendJSON(dst []byte) []byte {
	var resource, context *shape
	if r.Principal != nil {
		if a := r.Principal.schema.actions[r.Action]; a != nil {
			resource, context = a.resource, a.context
		}
	}
	dst = append(dst, `{"action":`...)
	dst = appendText(dst, r.Action)
	dst = append(dst, `,"context":`...)
	dst = appendShaped(dst, context, r.Context)
	dst = append(dst, `,"principal":`...)
	if r.Principal == nil {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, r.Principal.json...)
	}
	dst = append(dst, `,"resource":{"attrs":`...)
	dst = appendShaped(dst, resource, r.Resource.Attributes)
	dst = append(dst, `,"id":`...)
	dst = appendText(dst, r.Resource.ID)
	dst = append(dst, `,"type":`...)
	dst = appendText(dst, r.Resource.Type)
	return append(dst, `}}`...)
}

// appendJSON leaves out the attribute `id`, which the member "id" tells already.
func (p *Principal) appendJSON(dst []byte) []byte {
	attrs := make(Record, len(p.attrs))
	for name, v := range p.attrs {
		if name != "id" {
			attrs[name] = v
		}
	}
	dst = append(dst, `{"attrs":`...)
	dst = appendRecord(dst, attrs)
	dst = append(dst, `,"id":`...)
	dst = appendText(dst, p.ID())
	dst = append(dst, `,"type":`...)
	dst = appendText(dst, p.Type())
	return append(dst, '}')
}

// AppendJSON appends the canonical JSON of the decision to dst:
//
//	{"allow":false,"errors":["quota"],"reason":"policy_uncertain","rules":["quota"]}
//
// Errors and reason are left out where there are none. Of an error only the
// rule is kept: its message may change with the library that words it.
func (d *Decision) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"allow":`...)
	dst = strconv.AppendBool(dst, d.Allow)
	if len(d.Errors) > 0 {
		dst = append(dst, `,"errors":[`...)
		for i, e := range d.Errors {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendText(dst, e.Rule)
		}
		dst = append(dst, ']')
	}
	if d.Reason != "" {
		dst = append(dst, `,"reason":`...)
		dst = appendText(dst, string(d.Reason))
	}
	dst = append(dst, `,"rules":`...)
	dst = appendStrings(dst, d.Rules)
	return append(dst, '}')
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, s)
	}
	return append(dst, ']')
}

// appendShaped is appendRecord for a record that should fit sh: its names are sorted
// and quoted already. What does not fit, or has no shape, is left to appendRecord.
func appendShaped(dst []byte, sh *shape, rec Record) []byte {
	if sh == nil {
		return appendRecord(dst, rec)
	}
	start, found := len(dst), 0
	dst = append(dst, '{')
	for i := range sh.fields {
		f := &sh.fields[i]
		v, ok := rec[f.name]
		if !ok {
			continue
		}
		if found > 0 {
			dst = append(dst, ',')
		}
		found++
		dst = append(dst, f.key...)
		if nested, ok := v.(Record); ok {
			dst = appendShaped(dst, f.record, nested)
		} else {
			dst = appendValue(dst, v)
		}
	}
	if found != len(rec) {
		return appendRecord(dst[:start], rec)
	}
	return append(dst, '}')
}

func appendRecord(dst []byte, rec Record) []byte {
	names := make([]string, 0, len(rec))
	for name := range rec {
		if !utf8.ValidString(name) || strings.HasPrefix(name, "__") {
			return append(dst, "null"...) // "__" begins the escapes of appendExtension
		}
		names = append(names, name)
	}
	slices.Sort(names)
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, name)
		dst = append(dst, ':')
		dst = appendValue(dst, rec[name])
	}
	return append(dst, '}')
}

func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendText(dst, v)
	case bool:
		return strconv.AppendBool(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case Record:
		return appendRecord(dst, v)
	}
	if _, err := scalarOf(v); err != nil {
		return append(dst, "null"...)
	}
	switch v := v.(type) {
	case []string:
		return appendStrings(dst, sortedSet(v))
	case time.Time:
		return appendDatetime(dst, v.UTC())
	case types.Datetime:
		return appendDatetime(dst, v.Time())
	case types.Decimal:
		return appendExtension(dst, "decimal", v.String())
	case netip.Addr:
		return appendExtension(dst, "ip", v.Unmap().String())
	case netip.Prefix:
		return appendExtension(dst, "ip", types.IPAddr(v).String())
	}
	return append(dst, "null"...)
}

// appendDatetime writes t, which is in UTC, to the millisecond.
func appendDatetime(dst []byte, t time.Time) []byte {
	dst = append(dst, `{"__extn":{"arg":"`...)
	dst = t.AppendFormat(dst, time.RFC3339)
	ms := t.Nanosecond() / int(time.Millisecond)
	dst = append(dst[:len(dst)-1], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
	return append(dst, `","fn":"datetime"}}`...)
}

// appendExtension writes a value in the escape of Cedar's JSON format, keys in byte order.
func appendExtension(dst []byte, fn, arg string) []byte {
	dst = append(dst, `{"__extn":{"arg":`...)
	dst = appendText(dst, arg)
	dst = append(dst, `,"fn":`...)
	dst = appendText(dst, fn)
	return append(dst, `}}`...)
}

const hexDigits = "0123456789abcdef"

// appendText appends s as a JSON string in ASCII, or null where s is not UTF-8. The
// escapes are those of the evidence format: short ones where JSON has them, \u00xx in lower
// case for the rest, surrogate pairs beyond the BMP; '/', '<', '>' and '&' stand as they are.
func appendText(dst []byte, s string) []byte {
	begin := len(dst)
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c <= '~' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		if c < utf8.RuneSelf {
			dst = appendEscape(dst, c)
			i++
		} else {
			r, size := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && size == 1:
				return append(dst[:begin], "null"...)
			case r > 0xffff:
				r -= 0x10000
				dst = appendUnit(dst, 0xd800+r>>10)
				dst = appendUnit(dst, 0xdc00+r&0x3ff)
			default:
				dst = appendUnit(dst, r)
			}
			i += size
		}
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return appendUnit(dst, rune(c))
}

func appendUnit(dst []byte, u rune) []byte {
	return append(dst, '\\', 'u', hexDigits[u>>12&15], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}
