// Package oci runs containers under the OCI runtime of this host, runc or crun.
//
// # Who is who
//
//	server ── Driver
//	   │ ╲
//	   │  ╲ unix socket <id>/shim.sock: stop, follow ▸ ◂ reports
//	   │   ╲
//	   └──▶ supervisor (this program, as "oci-shim"), one per container
//	           │  child subreaper: owns both output pipes, the log, the exit code
//	           ├──▶ runc run --detach   ends as soon as the process runs
//	           └──▶ the container's first process
//
// Nothing that a container needs is in the server. The server may be killed at
// any moment; its containers and their supervisors go on, and the next Driver
// on the same state directory finds them by their records and connects to
// their sockets. A supervisor writes a report to disk before it tells the
// server, so an end that nobody watched is known, exit code and all. The end of
// a supervisor is the end of its connection: nothing is polled.
//
// What can die, and what then:
//
//	server            containers go on; the next one finds them
//	supervisor        the server, or the next one, kills the container and
//	                  reports it Failed: supervisor_lost
//	runtime           dies with its supervisor's thread; the start has failed
//	host              all are reported Failed: host_restarted
//	server in Start   what had begun goes on and is found; what had only been
//	                  prepared is removed
//
// # What a container is
//
// Every container has: its own pid, mount, network, ipc, uts and cgroup
// namespace; a uid that is never 0 and no capability in any set;
// no_new_privileges; a system call allow-list for the native architecture; a
// root that is read-only by having nowhere to write to; /tmp and /dev/shm in
// memory, bounded, not executable; no device but the harmless ones; nothing of
// the host mounted in; memory (with swap), CPU and process limits in a cgroup of
// its own; a network with nothing but loopback unless one is given. What of this
// the host cannot enforce it refuses: see Probe.
//
// # The state directory
//
//	lock                 held by the one Driver
//	instance             random, in the name of the cgroup
//	runtime/             the runtime's own state
//	containers/<id>/     record.json status.json config.json shim.sock
//	                     log/ skeleton/ rootfs/ runtime.log shim.log
//
// # What an operator should know
//
// Under systemd the server's unit needs KillMode=process: by default systemd
// ends the supervisors together with the server, and with them the containers.
// The containers' cgroups are below a group provost-<instance> at the root or in
// Config.CgroupParent; on cgroup v2 under systemd that should be a delegated one.
//
// Running without root is refused. A user namespace with a single uid would
// isolate, but the kernel takes limits only in cgroups delegated to the user,
// and a limit that is accepted has to be enforced.
//
// Containers of one uid share what the kernel counts per uid: inotify watches,
// message queues, pending signals. Give tenants that must not disturb each other
// there different uids.
package oci
