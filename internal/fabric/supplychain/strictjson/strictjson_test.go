package strictjson

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// fewNumbers takes up to three numbers.
type fewNumbers []int

func (f *fewNumbers) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return AppendArray(dec, (*[]int)(f), 3)
}

type document struct {
	Name string     `json:"name"`
	List fewNumbers `json:"list"`
}

func TestUnmarshal(t *testing.T) {
	nested := func(n int) string { return `{"name":"a","x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	members := func(n int) string {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, `,"x%d":[{"a:":0}]`, i)
		}
		return `{"name":"a"` + text.String() + "}"
	}
	for _, test := range []struct {
		name, text string
		limit, ok  bool
	}{
		{"plain", ` {"name":"a","other":[1,{"b":null}]} `, false, true},
		{"brackets in strings", `{"name":"` + strings.Repeat(`[\"{\\`, 300) + `"}`, false, true},
		{"list", `{"list":[1,2,3]}`, false, true},
		{"null list", `{"list":null}`, false, true},
		{"as deep as can be", nested(MaxDepth - 1), false, true},
		{"too deep", nested(MaxDepth), true, false},
		{"as many members as can be", members(MaxMembers - 1), false, true},
		{"too many members", members(MaxMembers), true, false},
		{"list too long", `{"list":[1,2,3,4]}`, true, false},
		{"list that is none", `{"list":{}}`, false, false},
		{"list cut short", `{"list":[1,2`, false, false},
		{"list of other things", `{"list":[1,"2"]}`, false, false},
		{"name twice", `{"name":"a","name":"b"}`, false, false},
		{"name twice in what is dropped", `{"other":{"a":1,"a":2}}`, false, false},
		{"two values", `{} {}`, false, false},
		{"invalid UTF-8", "{\"name\":\"\xff\"}", false, false},
		{"nothing", ``, false, false},
		{"lone bracket", `]`, false, false},
	} {
		var d document
		err := Unmarshal([]byte(test.text), &d)
		if (err == nil) != test.ok || errors.Is(err, ErrLimit) != test.limit {
			t.Errorf("%s: got %+v, %v", test.name, d, err)
		}
	}
	var d document
	if err := Unmarshal([]byte(`{"Name":"a"}`), &d); err != nil || d.Name != "" {
		t.Errorf("folded name: got %+v, %v, want it dropped", d, err)
	}
}

// FuzzUnmarshal holds what is accepted against the standard library.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"name":"a\"[","list":[1,2]}`))
	f.Add([]byte(`{"list":null,"x":[[[]]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d document
		if err := Unmarshal(text, &d); err != nil {
			return
		}
		if len(d.List) > 3 || !stdjson.Valid(text) {
			t.Errorf("accepted %q as %+v", text, d)
		}
	})
}
