// Package bundle writes and verifies evidence bundles: the files with which a
// stranger checks, offline, what a tenant's log says happened.
//
// A bundle is a directory, a .tar.gz or a .zip of
//
//	manifest.json         who exported what: scope, hashes, artifact pointers
//	profile-claim.json    what the producer claims to implement
//	verifier-inputs.json  how the hashes below are computed
//	chain-segment.json    id, sequence and hashes of each event, and their hash
//	events.jsonl          one canonical event a line (package canon)
//	artifacts/            the evidence and snapshots the events point at, each
//	                      named by the SHA-256 of its bytes
//	log-proof.json        the Merkle proof: a signed checkpoint of the log and,
//	                      for each run of consecutive events, the hashes beside it
//	SHA256SUMS            the digest of every file above, in sha256sum's format
//	SHA256SUMS.note       a C2SP signed note over the digest of SHA256SUMS
//
// The first five and artifacts/ are the evidence contract's (ecs.md §5), the
// other three are ours. A bundle without the last two is foreign: it is checked
// by the contract's seventeen steps, leniently where the contract's own
// reference tools are lax, and what it lacks is reported as not present.
//
// # What is bound to what
//
//	SHA256SUMS.note ──signs──> SHA256SUMS ──digest──> every file
//	checkpoint ──signs──> root ──RFC 6962──> leaf = line of events.jsonl
//	event.prev_hash ──> event before it          event.evidence_pointer ──> artifacts/
//	manifest.chain_segment_ref ──> chain-segment.json ──> event_hash of each event
//
// So a flip of any byte of any file is found, and named, by the file list; and
// who re-signs a doctored list with the same key still cannot move, drop or
// change an event inside a run without breaking the root that the log has
// shown to others.
//
// Selections need not be contiguous: an export of one correlation has many
// runs. Chain links are checked inside a run; the first event of a run that
// does not begin at sequence 1 carries the hash of the event before it as
// prior_event_hash in its segment entry.
package bundle
