package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"provost.dev/provost/client"
)

// document is anything that knows its own JSON, as resources of package client do.
type document interface{ JSON() json.RawMessage }

// field is one line of a resource shown by itself.
type field struct{ name, value string }

// columns say how a list of T becomes a table.
type columns[T any] struct {
	heads []string
	row   func(T) []string
	none  string // what to say when there is nothing, such as "no tenants"
}

// printOne shows one resource: its fields, or its JSON as the server sent it.
func printOne[T document](p *program, item T, fields func(T) []field) error {
	if p.output != "table" {
		return p.document(item.JSON())
	}
	return p.fields(fields(item))
}

// document writes JSON in the format asked for.
func (p *program) document(raw json.RawMessage) error {
	if p.output == "yaml" {
		return writeYAML(p.Out, raw)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := p.Out.Write(b.Bytes())
	return err
}

// value is document for what the server did not send.
func (p *program) value(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return p.document(raw)
}

// fields writes name and value pairs, leaving out what has no value.
func (p *program) fields(fs []field) error {
	t := p.table(nil)
	for _, f := range fs {
		if f.value != "" {
			t.add(f.name, f.value)
		}
	}
	return t.flush()
}

// printList shows at most limit items of seq, 0 for all of them, as a table or
// as {"items": […]}. Whatever came before an error is shown.
func printList[T document](p *program, seq iter.Seq2[T, error], limit int, c columns[T]) error {
	if p.output != "table" {
		return p.documents(raws(seq), limit)
	}
	t := p.table(c.heads)
	n := 0
	for item, err := range seq {
		if err != nil && n == 0 {
			return err
		}
		if err != nil {
			return firstError(t.flush(), err)
		}
		t.add(c.row(item)...)
		if n++; n == limit {
			break
		}
	}
	if n == 0 {
		fmt.Fprintln(p.Err, c.none)
		return nil
	}
	return t.flush()
}

// raws turns resources into their JSON.
func raws[T document](seq iter.Seq2[T, error]) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for item, err := range seq {
			if !yield(item.JSON(), err) {
				return
			}
		}
	}
}

// documents writes a list as it comes, so that a long one needs no memory.
func (p *program) documents(seq iter.Seq2[json.RawMessage, error], limit int) error {
	w := bufio.NewWriterSize(p.Out, 64<<10)
	n := 0
	open, before, after, end := "{\n  \"items\": [", "\n    ", ",", "\n  ]\n}\n"
	if p.output == "yaml" {
		open, before, after, end = "items:\n", "", "", ""
	}
	w.WriteString(open) //nolint:errcheck // bufio keeps the first error for Flush
	var failed error
	for raw, err := range seq {
		if err != nil {
			failed = err
			break
		}
		if n > 0 {
			w.WriteString(after) //nolint:errcheck // as above
		}
		w.WriteString(before) //nolint:errcheck // as above
		if err := p.item(w, raw); err != nil {
			return err
		}
		if n++; n == limit {
			break
		}
	}
	if n == 0 && failed != nil {
		return failed // what is buffered is an empty list, which would be a lie
	}
	if n == 0 {
		end = "]\n}\n"
		if p.output == "yaml" {
			end = "  []\n"
		}
	}
	w.WriteString(end) //nolint:errcheck // as above
	return firstError(w.Flush(), failed)
}

func (p *program) item(w io.Writer, raw json.RawMessage) error {
	if p.output == "yaml" {
		return writeYAML(w, []byte("["+string(raw)+"]"))
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "    ", "  "); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// done says on stderr what was changed, and where the evidence is.
func (p *program) done(r client.Receipt, format string, args ...any) {
	fmt.Fprintln(p.Err, plain(fmt.Sprintf(format, args...)))
	if r.EventID != "" {
		fmt.Fprintf(p.Err, "  evidence  %s\n  explain   provost why event/%s\n", plain(r.EvidencePointer), plain(r.EventID))
	}
}

// removed reports a change that left nothing to show but its receipt.
func (p *program) removed(r client.Receipt, format string, args ...any) error {
	p.done(r, format, args...)
	if p.output == "table" {
		return nil
	}
	return p.value(r)
}

// table aligns columns. It holds back at most tableBatch rows: later rows keep
// the widths found so far, or widen them.
type table struct {
	w      io.Writer
	color  bool
	widths []int
	rows   [][]string
	heads  bool
	err    error
}

const tableBatch = 500

// maxCell bounds a cell in bytes; the whole value is in the other formats.
const maxCell = 4096

func (p *program) table(heads []string) *table {
	t := &table{w: p.Out, color: colored(p.Out)}
	if heads != nil {
		t.heads = true
		t.add(heads...)
	}
	return t
}

func (t *table) add(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = plain(c)
		if len(row[i]) > maxCell {
			row[i] = strings.ToValidUTF8(row[i][:maxCell], "") + "…"
		}
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
	}
	if t.rows = append(t.rows, row); len(t.rows) >= tableBatch {
		t.err = firstError(t.err, t.flush())
	}
}

func (t *table) flush() error {
	var b strings.Builder
	for _, row := range t.rows {
		line := len(row) - 1
		for line > 0 && row[line] == "" {
			line-- // no blanks at a line's end
		}
		for i, cell := range row[:line+1] {
			b.WriteString(t.paint(cell, i))
			if i < line {
				b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
		t.heads = false
	}
	t.rows = t.rows[:0]
	_, err := io.WriteString(t.w, b.String())
	return firstError(t.err, err)
}

// paint colours headings and the words that matter most.
func (t *table) paint(cell string, column int) string {
	switch {
	case !t.color:
		return cell
	case t.heads:
		return bold + cell + reset
	}
	if c := wordColors[cell]; c != "" {
		return c + cell + reset
	}
	return cell
}

const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

var wordColors = map[string]string{
	"accepted": green, "active": green, "running": green, "ready": green, "verified": green, "allow": green, "ok": green,
	"refused": red, "failed": red, "invalid": red, "missing": red, "deleted": red, "deny": red, "no": red,
	"pending": yellow, "suspended": yellow, "stopped": yellow, "deprecated": yellow, "skipped": yellow,
}

// terminal reports whether w is one.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colored reports whether w may get colours (https://no-color.org).
func colored(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && terminal(w)
}

// plain is s without what could drive a terminal.
func plain(s string) string {
	if !strings.ContainsFunc(s, notPlain) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case notPlain(r):
			return -1
		}
		return r
	}, s)
}

func notPlain(r rune) bool { return !unicode.IsPrint(r) }

// yesNo is a fact in a table.
func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// textOnly refuses a format for what has only one: nothing is ignored.
func (p *program) textOnly() error {
	if p.output != "table" {
		return usagef("this is printed as text; leave out --output %s", p.output)
	}
	return nil
}
