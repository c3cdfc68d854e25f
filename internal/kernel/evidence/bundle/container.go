package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"provost.dev/provost/internal/kernel"
)

// container is a directory or an archive that may hold a bundle.
type container interface {
	format() string
	// walk calls visit for each regular file. Directories are passed over. It
	// returns a *damage for what is wrong with the container, visit's error, or
	// what went wrong with reading it.
	walk(ctx context.Context, visit visitor) error
	Close() error
}

// visitor takes a file: its name as it stands in the container, its size if
// known or -1, and its content, to be read before visitor returns.
type visitor func(name string, size int64, r io.Reader) error

// damage is a fault of the container itself.
type damage struct {
	file   string // being read or named, if any
	reason string
	err    error
	// whole says that all files could be read all the same, so that the checks
	// can go on and name the file that changed.
	whole bool
}

func (d *damage) Error() string {
	s := d.reason
	if d.err != nil {
		s += ": " + d.err.Error()
	}
	return s
}

func (d *damage) Unwrap() error { return d.err }

// openPath opens a directory or an archive, told apart by content.
func openPath(name string) (container, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "no bundle at " + name, Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	if info.IsDir() {
		return &dirContainer{os.DirFS(name)}, nil
	}
	if !info.Mode().IsRegular() {
		return nil, kernel.Errorf(kernel.Invalid, "", "%s is neither a file nor a directory", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	c, err := sniff(f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

// sniff tells the archive formats apart by their first bytes.
func sniff(f *os.File, size int64) (container, error) {
	var head [262]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	switch b := string(head[:n]); {
	case strings.HasPrefix(b, "\x1f\x8b"):
		return &tarContainer{f: f, size: size, gzip: true}, nil
	case strings.HasPrefix(b, "PK\x03\x04"), strings.HasPrefix(b, "PK\x05\x06"):
		return &zipContainer{f: f, size: size}, nil
	case len(b) == len(head) && b[257:262] == "ustar":
		return &tarContainer{f: f, size: size}, nil
	}
	return nil, kernel.Errorf(kernel.Invalid, "", "%s is neither a directory nor a .tar.gz, .tar or .zip", f.Name())
}

// checkName refuses names that could mean another place or another file on some
// system: a bundle is data to many readers, not only to this one.
func checkName(name string) error {
	bad := func(why string) error { return &damage{file: printable(name), reason: "file name " + why} }
	switch {
	case len(name) > maxName:
		return bad(fmt.Sprintf("of %d bytes, at most %d", len(name), maxName))
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case hasOdd(name):
		return bad("has a control character, backslash or colon")
	case !fs.ValidPath(name) || name == ".":
		return bad("is not a clean relative path")
	}
	return nil
}

func hasOdd(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c == 0x7f || c == '\\' || c == ':' {
			return true
		}
	}
	return false
}

// printable makes a foreign name fit for a message.
func printable(name string) string {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '?'
		}
		return r
	}, name), "?")
}

// dirContainer is an unpacked bundle. Links are refused, not followed.
type dirContainer struct{ fsys fs.FS }

func (d *dirContainer) format() string { return "directory" }
func (d *dirContainer) Close() error   { return nil }

func (d *dirContainer) walk(ctx context.Context, visit visitor) error {
	return fs.WalkDir(d.fsys, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read directory: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.IsDir() {
			return nil
		}
		if !e.Type().IsRegular() {
			return &damage{file: printable(name), reason: "not a regular file"}
		}
		f, err := d.fsys.Open(name)
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		err = visit(name, -1, f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	})
}

// strip removes a leading "./", as tar writes it for "tar -C dir .".
func strip(name string) string {
	return strings.TrimPrefix(name, "./")
}
