package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"

	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci/logfile"
	"provost.dev/provost/internal/kernel"
)

// LogReader reads a container's output. It belongs to one goroutine.
type LogReader struct {
	ctx    context.Context // ends with the caller's, or with the driver
	cancel context.CancelCauseFunc
	file   *logfile.Reader
}

// maxFollowers bounds who follows one container, below what a supervisor takes.
const maxFollowers = 64

// Logs reads the output of a container from where opts say. When following, it
// ends when the container has; ctx bounds all of it. The log of a container
// that was deleted can be read to its end by who has it open. Errors:
// kernel.NotFound, kernel.TooMany for the 65th follower of a container.
func (d *Driver) Logs(ctx context.Context, id string, opts runtime.LogOptions) (*LogReader, error) {
	c, err := d.get(id)
	if err != nil {
		return nil, err
	}
	r := &LogReader{}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	var growth *logfile.Growth
	if opts.Follow && !c.Status().State.Final() {
		if growth, err = r.follow(c); err != nil {
			r.cancel(nil)
			return nil, fmt.Errorf("follow log of container %s: %w", id, err)
		}
	}
	opts.Follow = growth != nil
	if r.file, err = logfile.Open(filepath.Join(c.dir, logDir), opts, growth); err != nil {
		return nil, errors.Join(fmt.Errorf("open log of container %s: %w", id, err), r.Close())
	}
	return r, nil
}

// follow has the supervisor tell us when the log grows, on a connection of its own.
func (r *LogReader) follow(c *container) (*logfile.Growth, error) {
	if c.followers.Add(1) > maxFollowers {
		c.followers.Add(-1)
		return nil, &kernel.Error{Kind: kernel.TooMany, Msg: fmt.Sprintf("at most %d readers may follow one container's log", maxFollowers)}
	}
	conn, err := dial(c.dir)
	if err == nil {
		err = writeMessage(conn, request{Op: "follow"})
	}
	if err != nil {
		c.followers.Add(-1)
		if conn != nil {
			_ = conn.Close()
		}
		if !c.Status().State.Final() {
			return nil, err
		}
		return nil, nil // it ended meanwhile: what is there is all
	}
	wrote := make(chan struct{}, 1)
	go func() {
		defer c.followers.Add(-1)
		forward(conn, wrote)
	}()
	go func() {
		defer conn.Close()
		select {
		case <-c.ended:
		case <-c.d.closing:
			r.cancel(errClosed)
		case <-r.ctx.Done():
		}
	}()
	return &logfile.Growth{Wrote: wrote, Ended: c.ended}, nil
}

// forward turns the supervisor's messages into wake-ups until it hangs up.
func forward(conn net.Conn, wrote chan<- struct{}) {
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return
		}
		if !m.Log {
			continue
		}
		select {
		case wrote <- struct{}{}:
		default:
		}
	}
}

// Next returns the entries that follow, as many as are there, up to about
// 64 KiB. It blocks only when following. io.EOF is the end of the log.
func (r *LogReader) Next() ([]runtime.LogEntry, error) {
	entries, err := r.file.Next(r.ctx)
	if err != nil && !errors.Is(err, io.EOF) && r.ctx.Err() != nil {
		return nil, context.Cause(r.ctx)
	}
	return entries, err
}

// Close ends reading. It is needed also after an error.
func (r *LogReader) Close() error {
	r.cancel(nil)
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
