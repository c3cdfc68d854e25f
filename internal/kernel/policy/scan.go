package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a policy text. The text is a tenant's; parsing, checking and evaluating it must
// stay cheap whatever it says. Cedar-go recurses as deep as a rule nests.
const (
	MaxSource = 256 << 10 // bytes
	MaxRules  = 10_000    // rules of one text

	maxNesting   = 32   // brackets and `if`s open at once
	maxOperators = 512  // operators and accesses of one rule
	maxPath      = 10   // `.name` in a row; `has a.b.c` grows with the square
	maxProblems  = 100  // reported of one text
	maxNote      = 1000 // bytes of an @reason or @fix
	maxMessage   = 500  // bytes of a problem's message; the checker prints whole types
)

type tokenKind uint8

const (
	word tokenKind = iota
	number
	text // a string literal, quotes included
	mark // an operator or bracket
)

// token is a lexical element with where it stands: lines and columns count from
// 1, columns in characters.
type token struct {
	kind         tokenKind
	text         string
	offset       int
	line, column int
}

// value is the content of a simple string literal, or the text of another token.
func (t token) value() string {
	if t.kind == text {
		return strings.Trim(t.text, `"`)
	}
	return t.text
}

// statement is one rule of a text, its closing semicolon included.
type statement struct {
	tokens []token
}

func (s statement) first() token { return s.tokens[0] }

// scanner splits a policy text into statements without parsing it: enough to bound
// what the parser will meet, and to say where in a rule a name stands.
type scanner struct {
	src          string
	pos          int
	line, column int
	problems     []Problem
}

// scan returns the statements of src. Problems are limits passed and what cannot be
// read at all; where there are any, src must not be given to the parser.
func scan(src string) ([]statement, []Problem) {
	s := &scanner{src: src, line: 1, column: 1}
	if at := strings.IndexFunc(src, func(r rune) bool { return r == utf8.RuneError || r == 0 }); at >= 0 {
		s.advance(at)
		s.report(token{line: s.line, column: s.column}, "this is not UTF-8 text")
		return nil, s.problems
	}
	var out []statement
	var cur []token
	for {
		t, ok := s.next()
		if !ok {
			break
		}
		cur = append(cur, t)
		if t.text == ";" && t.kind == mark {
			out = append(out, statement{cur})
			cur = nil
		}
	}
	if len(cur) > 0 {
		out = append(out, statement{cur})
	}
	if len(out) > MaxRules {
		first := out[MaxRules].first()
		s.report(first, fmt.Sprintf("%d rules, at most %d are allowed in one policy", len(out), MaxRules))
	}
	for _, st := range out {
		s.limits(st)
	}
	return out, s.problems
}

func (s *scanner) report(t token, msg string) {
	if len(s.problems) < maxProblems {
		s.problems = append(s.problems, Problem{Line: t.line, Column: t.column, Message: msg})
	}
}

// next returns the next token, or false at the end or after text that cannot be
// read further.
func (s *scanner) next() (token, bool) {
	if !s.skipSpace() || s.pos == len(s.src) {
		return token{}, false
	}
	t := token{offset: s.pos, line: s.line, column: s.column}
	c := s.src[s.pos]
	switch {
	case isWordByte(c) && !isDigit(c):
		t.kind = word
		s.takeWhile(isWordByte)
	case isDigit(c):
		t.kind = number
		s.takeWhile(isDigit)
	case c == '"':
		t.kind = text
		if !s.takeString() {
			s.report(t, "this string is not closed on its line")
			return t, false
		}
	default:
		t.kind = mark
		s.takeMark()
	}
	t.text = s.src[t.offset:s.pos]
	return t, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWordByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
}

// advance moves over n bytes, counting lines and characters.
func (s *scanner) advance(n int) {
	for _, r := range s.src[s.pos : s.pos+n] {
		s.column++
		if r == '\n' {
			s.line, s.column = s.line+1, 1
		}
	}
	s.pos += n
}

func (s *scanner) takeWhile(in func(byte) bool) {
	end := s.pos
	for end < len(s.src) && in(s.src[end]) {
		end++
	}
	s.advance(end - s.pos)
}

// takeString moves over a string literal; false says it has no end.
func (s *scanner) takeString() bool {
	for end := s.pos + 1; end < len(s.src); end++ {
		switch s.src[end] {
		case '\\':
			end++
		case '\n':
			return false
		case '"':
			s.advance(end + 1 - s.pos)
			return true
		}
	}
	return false
}

func (s *scanner) takeMark() {
	rest := s.src[s.pos:]
	for _, two := range []string{"::", "&&", "||", "==", "!=", "<=", ">="} {
		if strings.HasPrefix(rest, two) {
			s.advance(2)
			return
		}
	}
	_, size := utf8.DecodeRuneInString(rest)
	s.advance(size)
}

// skipSpace moves over white space and comments; false says a comment has no end.
func (s *scanner) skipSpace() bool {
	for s.pos < len(s.src) {
		rest := s.src[s.pos:]
		switch {
		case strings.IndexByte(" \t\r\n", rest[0]) >= 0:
			s.advance(1)
		case strings.HasPrefix(rest, "//"):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			s.advance(end)
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				s.report(token{line: s.line, column: s.column}, "this comment is not closed")
				return false
			}
			s.advance(end + 4)
		default:
			return true
		}
	}
	return true
}

// limits reports a statement which nests or chains further than is allowed.
func (s *scanner) limits(st statement) {
	var open []int // for each bracket: the depth outside of it
	depth, operators, path := 0, 0, 0
	for i, t := range st.tokens {
		if t.kind == word && t.text == "if" {
			depth++ // an `if` is open until the bracket around it closes
		}
		if t.kind == mark {
			switch t.text {
			case "(", "[", "{":
				open = append(open, depth)
				depth++
				if t.text == "[" {
					operators++ // as an access: a["b"]["c"] nests to the left
				}
			case ")", "]", "}":
				if n := len(open); n > 0 {
					depth, open = open[n-1], open[:n-1]
				}
			case "!", "-", "+", "*", "&&", "||", ".":
				operators++
			}
		}
		switch {
		case t.text == "." && t.kind == mark:
			path++
		case t.kind != word || i == 0 || st.tokens[i-1].text != ".":
			path = 0
		}
		switch {
		case depth > maxNesting:
			s.report(t, fmt.Sprintf("nested more than %d deep", maxNesting))
			return
		case operators > maxOperators:
			s.report(t, fmt.Sprintf("more than %d operators in one rule; split the rule, or compare with a set: [\"a\", \"b\"].contains(x)", maxOperators))
			return
		case path > maxPath:
			s.report(t, fmt.Sprintf("more than %d attributes in a row", maxPath))
			return
		}
	}
}
