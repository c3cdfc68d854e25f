package oci

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// A supervisor and the server speak JSON lines over a unix socket in the
// container's directory, which only the server's user can enter.
//
//	server      {"op":"stop","signal":15,"grace_ms":10000}
//	            {"op":"follow"}               tell me when the log grows
//	supervisor  {"report":{…}}                at once, and on every change
//	            {"log":true}                  the log grew since the last one
//
// The end of the connection is the end of the supervisor. What is to be told is
// a state and not a queue, so a slow reader costs nothing and sees the latest.
type request struct {
	Op      string `json:"op"`
	Signal  int    `json:"signal,omitempty"`
	GraceMS int64  `json:"grace_ms,omitempty"`
}

type message struct {
	Report *report `json:"report,omitempty"`
	Log    bool    `json:"log,omitempty"`
}

// Bounds of the protocol.
const (
	maxRequest     = 4 << 10
	maxConnections = 256
	writeTimeout   = 5 * time.Second
)

// shimServer is the supervisor's side of the socket.
type shimServer struct {
	listener net.Listener
	stop     func(sig syscall.Signal, grace time.Duration)

	mu     sync.Mutex // guards what follows, and the fields of the connections
	report report
	conns  map[*shimConn]struct{}
	closed bool
	served sync.WaitGroup // one for each connection's writer
}

// shimConn is one connection. Exactly one goroutine writes to it.
type shimConn struct {
	net.Conn
	kick   chan struct{} // buffer of one: something is to be told
	told   bool          // the present report has been sent
	follow bool
	grew   bool // the log has, since it was last told
	ending bool // tell what is left, then close
}

func newShimServer(l net.Listener, first report, stop func(syscall.Signal, time.Duration)) *shimServer {
	return &shimServer{listener: l, stop: stop, report: first, conns: map[*shimConn]struct{}{}}
}

// accept serves connections until close.
func (s *shimServer) accept() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: some will be closed
			continue
		}
		c := &shimConn{Conn: conn, kick: make(chan struct{}, 1)}
		if !s.add(c) {
			_ = conn.Close()
			continue
		}
		go s.read(c)
	}
}

// add begins to tell c, unless there is no room.
func (s *shimServer) add(c *shimConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConnections {
		return false
	}
	s.conns[c] = struct{}{}
	s.served.Go(func() { s.write(c) })
	c.wake()
	return true
}

// wake has the writer look at what there is to tell. s.mu is held.
func (c *shimConn) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// read obeys one connection until it ends.
func (s *shimServer) read(c *shimConn) {
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, maxRequest)
	for lines.Scan() {
		var req request
		if json.Unmarshal(lines.Bytes(), &req) != nil {
			break
		}
		switch req.Op {
		case "stop":
			s.stop(syscall.Signal(req.Signal), time.Duration(req.GraceMS)*time.Millisecond)
		case "follow":
			s.mu.Lock()
			// Told once for what was written before we knew.
			c.follow, c.grew = true, true
			c.wake()
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	c.ending = true
	c.wake()
	s.mu.Unlock()
}

// write tells one connection until it is ending or broken.
func (s *shimServer) write(c *shimConn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		_ = c.Close()
	}()
	for range c.kick {
		messages, ending := s.next(c)
		for _, m := range messages {
			if err := writeMessage(c, m); err != nil {
				return
			}
		}
		if ending {
			return
		}
	}
}

// next returns what c has not been told yet.
func (s *shimServer) next(c *shimConn) (messages []message, ending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.grew {
		messages, c.grew = append(messages, message{Log: true}), false
	}
	if !c.told {
		rep := s.report
		messages, c.told = append(messages, message{Report: &rep}), true
	}
	return messages, c.ending
}

// writeMessage sends one line, to either side.
func writeMessage(c net.Conn, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err = c.Write(append(data, '\n'))
	return err
}

// publish tells everyone of a new report.
func (s *shimServer) publish(rep report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report = rep
	for c := range s.conns {
		c.told = false
		c.wake()
	}
}

// logGrew tells those who follow.
func (s *shimServer) logGrew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.follow {
			c.grew = true
			c.wake()
		}
	}
}

// close tells everyone what is left, for at most the given time, and hangs up.
func (s *shimServer) close(patience time.Duration) {
	_ = s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.ending = true
		c.wake()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.served.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
	}
}
