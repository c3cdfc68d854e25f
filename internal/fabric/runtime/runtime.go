// Package runtime holds the plain types in which isolated processes are asked
// for and reported, whatever isolates them: containers (package oci) today,
// machines later. It starts nothing itself.
//
// A driver takes a Spec, runs it once, and reports it as a Status until it is
// deleted. Running something again is a new Spec with a new ID: a Status never
// goes back.
//
//	Starting ──▶ Running ──▶ Exited
//	    │            │
//	    └────────────┴─────▶ Failed   never ran, or nobody saw how it ended
package runtime

import (
	"maps"
	"net/netip"
	"syscall"
	"time"
)

// Spec is one process to isolate and run. Every limit is enforced or refused.
type Spec struct {
	// ID names the process on this host, in file names and cgroups: 1 to 128 of
	// [A-Za-z0-9_.-], starting with a letter or digit.
	ID string `json:"id"`
	// Rootfs is the absolute path of an unpacked image. It is never written, so
	// any number of processes may share it.
	Rootfs string `json:"rootfs"`
	// Args is the program and its arguments; the program is looked up in PATH of Env.
	Args []string `json:"args"`
	// Env holds KEY=value pairs. PATH gets the usual default when absent.
	Env []string `json:"env,omitempty"`
	// Cwd is an absolute path that exists in the image; empty means /.
	Cwd string `json:"cwd,omitempty"`
	// UID and GID run the process. Zero is never root: it means the driver's
	// unprivileged default, each on its own.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`
	// Hostname as seen inside; empty means the first 63 characters of ID.
	Hostname string `json:"hostname,omitempty"`
	// StopSignal asks the process to end; zero means SIGTERM.
	StopSignal syscall.Signal `json:"stop_signal,omitempty"`

	Limits  Limits  `json:"limits"`
	Network Network `json:"network"`
	// Labels are kept and reported unchanged, so that whoever restarts finds
	// out what a process is for. At most 64, keys to 128 bytes, values to 1024.
	Labels map[string]string `json:"labels,omitempty"`
}

// Limits bound what a process takes from its host. Memory, CPU and PIDs must be set.
type Limits struct {
	// MemoryBytes caps RAM, page cache, /tmp and /dev/shm together. Swap is not added.
	MemoryBytes int64 `json:"memory_bytes"`
	// CPUMillis caps CPU time: 1000 is one core's worth.
	CPUMillis int64 `json:"cpu_millis"`
	// PIDs caps processes and threads together.
	PIDs int64 `json:"pids"`
	// TmpBytes caps /tmp, which lives in memory; zero means the driver's default.
	TmpBytes int64 `json:"tmp_bytes,omitempty"`
}

// Network says what a process can reach. The zero value is nothing but its own loopback.
type Network struct {
	// NamespacePath joins an existing network namespace, such as /run/netns/web;
	// who made it decides what is reachable. Empty means a new one with only lo.
	NamespacePath string `json:"namespace_path,omitempty"`
	// Nameservers go into /etc/resolv.conf, in order, at most 3. None: the file is empty.
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
}

// State is where a process stands.
type State string

// The states of a process. Exited and Failed are final.
const (
	Starting State = "starting" // recorded, not yet running
	Running  State = "running"  // its first instruction may have run
	Exited   State = "exited"   // it ended and its exit code is known
	Failed   State = "failed"   // it never ran, or how it ended is unknown
)

// Final reports whether s cannot change any more.
func (s State) Final() bool { return s == Exited || s == Failed }

// Reason says why a process is in a final State.
type Reason string

// The closed set of reasons, with the State each belongs to.
const (
	ReasonExited         Reason = "exited"          // Exited: ended by itself
	ReasonStopped        Reason = "stopped"         // Exited: ended within the grace of Stop
	ReasonKilled         Reason = "killed"          // Exited: killed because Stop's grace was over
	ReasonSignalled      Reason = "signalled"       // Exited: by a signal this driver did not send
	ReasonOOM            Reason = "oom_killed"      // Exited: went over MemoryBytes
	ReasonStartFailed    Reason = "start_failed"    // Failed: the runtime refused it; Message has its words
	ReasonSupervisorLost Reason = "supervisor_lost" // Failed: its supervisor died, so it was killed
	ReasonHostRestarted  Reason = "host_restarted"  // Failed: the host went down under it
)

// Status is what is known of one process.
type Status struct {
	ID     string `json:"id"`
	State  State  `json:"state"`
	Reason Reason `json:"reason,omitempty"`
	// Message is one sentence for a person, without paths of the host.
	Message string `json:"message,omitempty"`
	// ExitCode is valid when State is Exited: the process's own, or 128+n when
	// signal n ended it, as shells count.
	ExitCode int `json:"exit_code"`
	// OOMKilled reports that the kernel killed at least one process inside for
	// going over MemoryBytes, even if the first one lived on.
	OOMKilled bool `json:"oom_killed,omitempty"`
	// PID is the host's number of the first process, while Running.
	PID int `json:"pid,omitempty"`
	// UID and GID are the numbers it runs as, never 0.
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Rootfs string `json:"rootfs"`
	Limits Limits `json:"limits"`

	Labels map[string]string `json:"labels,omitempty"`
	// LogBytesLost counts output that could not be written, as on a full disk.
	LogBytesLost int64 `json:"log_bytes_lost,omitempty"`

	CreatedAt  time.Time `json:"created_at"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
}

// Clone returns a copy that shares nothing with s.
func (s Status) Clone() Status {
	s.Labels = maps.Clone(s.Labels)
	return s
}

// Stream is which output a log entry came from.
type Stream string

// The two outputs of a process.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// LogEntry is one line of output, or a piece of a long one.
type LogEntry struct {
	Time   time.Time `json:"time"`
	Stream Stream    `json:"stream"`
	// Partial is set when the line goes on in the stream's next entry.
	Partial bool `json:"partial,omitempty"`
	// Gap is set when entries right before this one are gone, because newer
	// output pushed them out before they were read.
	Gap bool `json:"gap,omitempty"`
	// Data is the line without its newline, byte for byte.
	Data []byte `json:"data"`
}

// LogOptions choose what of a log is read.
type LogOptions struct {
	// Follow keeps reading until the process has ended.
	Follow bool
	// Tail starts with the last n entries; zero starts with the oldest kept,
	// negative with the next one to be written.
	Tail int
}
