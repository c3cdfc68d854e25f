package app

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// guide is what operators read about the configuration.
var guide = filepath.Join("..", "..", "docs", "guides", "configuration.md")

// documented is a row of the guide's tables.
type documented struct{ env, value string }

var (
	settingRow = regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `(PROVOST_[A-Z_]+)` \\| ([^|]*) \\| [^|]+ \\|$")
	accountRow = regexp.MustCompile("(?m)^\\| `([a-z_.]*\\[\\][a-z_.\\[\\]]*)` \\| [^|]+ \\|$")
)

// TestEveryKeyIsDocumented holds the guide to the code: the same keys, the
// same variables, the same defaults, nothing more and nothing less.
func TestEveryKeyIsDocumented(t *testing.T) {
	b, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]documented{}
	for _, m := range settingRow.FindAllStringSubmatch(string(b), -1) {
		said[m[1]] = documented{m[2], strings.TrimSpace(m[3])}
	}
	cfg := Config{DataDir: "DATA_DIR"}
	cfg.defaults()
	cfg.DataDir = "" // required, so it has none
	keys := map[string]reflect.Value{}
	settings("", reflect.ValueOf(&cfg).Elem(), keys)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		d, ok := said[key]
		delete(said, key)
		if env := "PROVOST_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")); !ok || d.env != env {
			t.Errorf("%s: %s is missing from a table, or not with the variable %s", guide, key, env)
			continue
		}
		// A default that the code fills in stands in the guide as code; where
		// something else decides, it stands there in words.
		want := ""
		if v := keys[key]; !v.IsZero() {
			want = fmt.Sprint(v.Interface())
			if d, ok := v.Interface().(Duration); ok {
				want = time.Duration(d).String()
			}
		}
		if got, code := strings.CutPrefix(strings.TrimSuffix(d.value, "`"), "`"); code != (want != "") || code && got != want {
			t.Errorf("%s: the default of %s is given as %s, the code's is %q", guide, key, d.value, want)
		}
	}
	for key := range said {
		t.Errorf("%s: %s is no key", guide, key)
	}
}

func TestEveryKeyOfAccountsIsDocumented(t *testing.T) {
	b, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range accountRow.FindAllStringSubmatch(string(b), -1) {
		got = append(got, m[1])
	}
	want := members("auth.accounts[]", reflect.TypeFor[AccountsConfig]())
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: keys of accounts are\n  %q, want\n  %q", guide, got, want)
	}
	for _, name := range clientVariables {
		if !strings.Contains(string(b), "`"+name+"`") {
			t.Errorf("%s: does not say what %s is for", guide, name)
		}
	}
}

// settings collects the keys that have a variable, by their path in the file.
func settings(prefix string, v reflect.Value, keys map[string]reflect.Value) {
	for i := range v.NumField() {
		name := prefix + yamlName(v.Type().Field(i))
		if v.Field(i).Kind() == reflect.Struct {
			settings(name+".", v.Field(i), keys)
			continue
		}
		keys[name] = v.Field(i)
	}
}

// members lists the keys of what a list of the file holds.
func members(prefix string, t reflect.Type) (names []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + "." + yamlName(f)
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			names = append(names, members(name+"[]", f.Type.Elem())...)
			continue
		}
		names = append(names, name)
	}
	return names
}

func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}
