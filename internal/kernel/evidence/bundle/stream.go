package bundle

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// stream reads a JSON document piece by piece, so that its size does not matter,
// only that of its single values. It refuses duplicate names and invalid UTF-8.
type stream struct {
	dec *jsontext.Decoder
	in  *pieceReader
}

// pieceReader fails when one piece takes more than maxDocument bytes.
type pieceReader struct {
	r    io.Reader
	left int
}

var errLongValue = fmt.Errorf("a single value of more than %d bytes", maxDocument)

func (p *pieceReader) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, errLongValue
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	return n, err
}

// maxNames bounds an object: telling duplicate names costs memory for each.
const maxNames = 10_000

func newStream(r io.Reader) *stream {
	in := &pieceReader{r: r}
	return &stream{dec: jsontext.NewDecoder(in), in: in}
}

// piece allows the next piece its bytes. What the decoder reads ahead is within.
func (s *stream) piece() { s.in.left = maxDocument }

func (s *stream) token() (jsontext.Token, error) {
	s.piece()
	t, err := s.dec.ReadToken()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}

func (s *stream) kind() jsontext.Kind {
	s.piece()
	return s.dec.PeekKind()
}

func (s *stream) expect(k jsontext.Kind, what string) (jsontext.Token, error) {
	t, err := s.token()
	if err == nil && t.Kind() != k {
		err = fmt.Errorf("%s: want %s, got %s", s.dec.StackPointer(), what, t.Kind())
	}
	return t, err
}

// object reads an object; fn reads the value of each name.
func (s *stream) object(fn func(name string) error) error {
	if _, err := s.expect('{', "an object"); err != nil {
		return err
	}
	for n := 0; s.kind() != '}'; n++ {
		if n == maxNames {
			return fmt.Errorf("%s: more than %d members", s.dec.StackPointer(), maxNames)
		}
		name, err := s.expect('"', "a name")
		if err != nil {
			return err
		}
		if err := fn(name.String()); err != nil {
			return err
		}
	}
	_, err := s.token()
	return err
}

// array reads an array; fn reads each element.
func (s *stream) array(fn func() error) error {
	if _, err := s.expect('[', "an array"); err != nil {
		return err
	}
	for s.kind() != ']' {
		if err := fn(); err != nil {
			return err
		}
	}
	_, err := s.token()
	return err
}

func (s *stream) text(to *string) error {
	t, err := s.expect('"', "a string")
	if err == nil {
		*to = t.String()
	}
	return err
}

// textOrNull reads a string or null, which is the empty string.
func (s *stream) textOrNull(to *string) error {
	if s.kind() == 'n' {
		_, err := s.token()
		*to = ""
		return err
	}
	return s.text(to)
}

func (s *stream) number(to *uint64) error {
	t, err := s.expect('0', "a whole number")
	if err != nil {
		return err
	}
	if *to, err = t.Uint(); err != nil {
		return fmt.Errorf("%s: want a whole number: %w", s.dec.StackPointer(), err)
	}
	return nil
}

// value returns the raw text of the next value, good until the next call.
func (s *stream) value() ([]byte, error) {
	s.piece()
	return s.dec.ReadValue()
}

// skip passes over the next value, whatever its size.
func (s *stream) skip() error {
	switch s.kind() {
	case '{':
		return s.object(func(string) error { return s.skip() })
	case '[':
		return s.array(s.skip)
	}
	_, err := s.token()
	return err
}

// end makes sure that nothing but whitespace follows.
func (s *stream) end() error {
	s.piece()
	_, err := s.dec.ReadToken()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errors.New("data after the document")
	}
	return err
}
