package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"provost.dev/provost/client"
	"provost.dev/provost/internal/kernel"
)

// readInput reads a file of at most limit bytes; "-" is stdin, where there is one.
func readInput(stdin io.Reader, name string, limit int64) ([]byte, error) {
	r := stdin
	if name != "-" || stdin == nil {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "there is no file " + name}
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, usagef("%s is larger than %s", name, formatBytes(limit))
	}
	return b, nil
}

// maxPassword bounds a password in bytes.
const maxPassword = 4096

// password reads a password: all of stdin when piped says so, else from the
// terminal without showing it.
func (p *program) password(prompt string, piped bool) (string, error) {
	if piped {
		b, err := readInput(p.In, "-", maxPassword)
		if err != nil {
			return "", err
		}
		b = bytes.TrimSuffix(b, []byte("\n"))
		b = bytes.TrimSuffix(b, []byte("\r"))
		if len(b) == 0 || bytes.ContainsAny(b, "\r\n") {
			return "", usagef("--password-stdin wants the password as one line on standard input")
		}
		return string(b), nil
	}
	f, ok := p.In.(*os.File)
	if !ok || !terminal(f) {
		return "", usagef("standard input is not a terminal; give the password with --password-stdin")
	}
	fmt.Fprintf(p.Err, "%s: ", prompt)
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(p.Err)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	if len(b) == 0 || len(b) > maxPassword {
		return "", usagef("a password has 1 to %d bytes", maxPassword)
	}
	return string(b), nil
}

// ask reads a line from the terminal.
func (p *program) ask(prompt, flag string) (string, error) {
	f, ok := p.In.(*os.File)
	if !ok || !terminal(f) {
		return "", usagef("give --%s", flag)
	}
	fmt.Fprintf(p.Err, "%s: ", prompt)
	line, err := bufio.NewReader(io.LimitReader(f, maxPassword)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read %s: %w", prompt, err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", usagef("give --%s", flag)
	}
	return line, nil
}

// progress shows how far long work is, on one line of a terminal. On anything
// else it shows nothing.
type progress struct {
	w   io.Writer // nil shows nothing
	now func() time.Time

	mu   sync.Mutex
	last time.Time
	used bool
}

func (p *program) progress() *progress {
	g := &progress{now: p.now}
	if terminal(p.Err) {
		g.w = p.Err
	}
	return g
}

// show replaces the line, at most ten times a second.
func (g *progress) show(format string, args ...any) {
	if g.w == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now().Sub(g.last) < 100*time.Millisecond {
		return
	}
	g.last, g.used = g.now(), true
	fmt.Fprintf(g.w, "\r\x1b[K%s", plain(fmt.Sprintf(format, args...)))
}

// end takes the line away.
func (g *progress) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.used {
		fmt.Fprint(g.w, "\r\x1b[K")
	}
	g.used = false
}

// counter shows how many bytes have passed.
type counter struct {
	w    io.Writer
	g    *progress
	what string
	n    int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	c.g.show("%s %s", c.what, formatBytes(c.n))
	return n, err
}

// unverified makes a message an error of exit code 6.
func unverified(format string, args ...any) error {
	return fmt.Errorf("%w: %s", client.ErrUnverified, fmt.Sprintf(format, args...))
}
