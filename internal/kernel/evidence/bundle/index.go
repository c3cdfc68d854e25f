package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"provost.dev/provost/internal/kernel/evidence/canon"
)

// file is a file of the bundle that is not an intact artifact named by its own
// digest.
type file struct {
	sum    digest
	body   *spool // of the documents at the root, nil for others
	listed bool   // in SHA256SUMS
}

// index is what a bundle was found to hold. It is read once from front to back,
// so that archives need no random access: documents are spooled, artifacts are
// hashed and let go.
type index struct {
	limits  Limits
	tempDir string

	files map[string]*file
	// intact holds the artifacts whose names are their digests, which are all
	// artifacts of our bundles, in 33 bytes each: false until SHA256SUMS lists it.
	intact map[digest]bool
	// others holds the digests of differently named artifacts, and ids the "id"
	// member of those that are small JSON objects: foreign events name snapshots so.
	others map[digest]string
	ids    map[string]digest

	prefix    string // folder that the container wraps the bundle in, with slash
	hasPrefix bool
	count     int
	bytes     int64
	sum       hash.Hash
	buf       []byte
}

func newIndex(limits Limits, tempDir string) *index {
	return &index{
		limits: limits, tempDir: tempDir, files: map[string]*file{}, intact: map[digest]bool{}, others: map[digest]string{},
		ids: map[string]digest{}, sum: sha256.New(), buf: make([]byte, 64<<10),
	}
}

func (x *index) Close() error {
	var errs []error
	for _, f := range x.files {
		if f.body != nil {
			errs = append(errs, f.body.Close())
		}
	}
	return errors.Join(errs...)
}

// roots are the documents that are spooled.
var roots = map[string]bool{
	manifestName: true, eventsName: true, segmentName: true, inputsName: true, claimName: true,
	proofName: true, sumsName: true, noteName: true,
}

// readError marks an error of the stream that a file was read from, as opposed
// to one of the spool it was written to.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// add reads one file. It is a visitor.
func (x *index) add(name string, size int64, r io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	if x.count++; x.count > x.limits.Files {
		return &damage{reason: fmt.Sprintf("more than %d files", x.limits.Files)}
	}
	if size > x.limits.FileBytes {
		return &damage{file: name, reason: fmt.Sprintf("file of %d bytes, at most %d", size, x.limits.FileBytes)}
	}
	name, err := x.inside(name)
	if err != nil {
		return err
	}
	var f file
	var head []byte
	switch {
	case roots[name]:
		f.body = newSpool(x.tempDir)
		err = x.copy(name, r, f.body)
		f.sum = f.body.digest()
	default:
		head, err = x.hash(name, r)
		x.sum.Sum(f.sum[:0])
	}
	if err != nil {
		if f.body != nil {
			err = errors.Join(err, f.body.Close())
		}
		return err
	}
	return x.keep(name, f, head)
}

// inside takes off the folder that many packers wrap everything in. The first
// file shows it: only artifacts may lie below the root.
func (x *index) inside(name string) (string, error) {
	if !x.hasPrefix {
		x.hasPrefix = true
		if top, _, nested := strings.Cut(name, "/"); nested && top+"/" != artifactDir {
			x.prefix = top + "/"
		}
	}
	inner, ok := strings.CutPrefix(name, x.prefix)
	if !ok {
		return "", &damage{file: name, reason: "lies outside the bundle's folder " + x.prefix}
	}
	return inner, nil
}

func (x *index) keep(name string, f file, head []byte) error {
	_, twice := x.files[name]
	want, named := artifactName(name)
	if named && !twice {
		_, twice = x.intact[want]
	}
	switch {
	case twice:
		err := error(&damage{file: name, reason: "occurs twice"})
		if f.body != nil {
			err = errors.Join(err, f.body.Close())
		}
		return err
	case named && want == f.sum:
		x.intact[want] = false
		return nil
	case len(x.files) == maxOthers:
		return &damage{file: name, reason: fmt.Sprintf("more than %d files that are not artifacts named by their digest", maxOthers)}
	}
	x.files[name] = &f
	if !named && strings.HasPrefix(name, artifactDir) {
		x.others[f.sum] = name
		if id := idOf(head); id != "" {
			x.ids[id] = f.sum
		}
	}
	return nil
}

// maxOthers bounds the files that cost more memory than an intact artifact.
const maxOthers = 200_000

// maxIdentified is how large a foreign artifact may be for its id to be read.
const maxIdentified = 32 << 10

// idOf returns the id of a small JSON object, or "".
func idOf(content []byte) string {
	text, err := canon.Transform(nil, content)
	if err != nil {
		return ""
	}
	return string(stringOf(member(text, "id")))
}

// copy spools a document.
func (x *index) copy(name string, r io.Reader, to io.Writer) error {
	_, err := x.read(name, r, func(p []byte) error {
		_, err := to.Write(p)
		return err
	})
	return err
}

// hash sums an artifact, and returns its content if it is small.
func (x *index) hash(name string, r io.Reader) (head []byte, err error) {
	x.sum.Reset()
	n, err := x.read(name, r, func(p []byte) error {
		x.sum.Write(p)
		return nil
	})
	if n <= maxIdentified && n <= int64(len(x.buf)) {
		head = x.buf[:n] // read fills the buffer from the front, once
	}
	return head, err
}

// read passes the content of a file to fn in pieces, within the limits.
func (x *index) read(name string, r io.Reader, fn func([]byte) error) (n int64, err error) {
	for {
		m, err := readFull(r, x.buf)
		n += int64(m)
		x.bytes += int64(m)
		if n > x.limits.FileBytes || x.bytes > x.limits.TotalBytes {
			return n, &damage{file: name, reason: fmt.Sprintf("unpacks to more than %d bytes, or all files to more than %d", x.limits.FileBytes, x.limits.TotalBytes)}
		}
		if m > 0 {
			if err := fn(x.buf[:m]); err != nil {
				return n, err
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, &readError{err}
		}
	}
}

// readFull reads until buf is full or the stream ends, which is io.EOF. Unlike
// io.ReadFull it does not make io.ErrUnexpectedEOF of a good end, which is what
// decoders call a bad one.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// resolve says whether an artifact of this digest is in the bundle.
func (x *index) resolve(d digest) bool {
	if _, ok := x.intact[d]; ok {
		return true
	}
	_, ok := x.others[d]
	return ok
}

// open returns a spooled document from the start, nil if the bundle has none.
func (x *index) open(name string) (io.Reader, error) {
	f := x.files[name]
	if f == nil {
		return nil, nil
	}
	return f.body.reader()
}

// small returns a document that must fit in memory; nil if there is none.
func (x *index) small(name string) ([]byte, error) {
	r, err := x.open(name)
	if r == nil || err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("longer than %d bytes", maxDocument)
	}
	return b, err
}

// fill reads the container.
func (x *index) fill(ctx context.Context, c container, progress func(Progress)) error {
	next := int64(progressBytes)
	return c.walk(ctx, func(name string, size int64, r io.Reader) error {
		err := x.add(name, size, r)
		if x.bytes >= next {
			next = x.bytes + progressBytes
			progress(Progress{Phase: "read", Done: x.bytes})
		}
		return err
	})
}
