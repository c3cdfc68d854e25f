package bundle

import (
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"provost.dev/provost/internal/kernel"
)

// Options of a verification. The zero value is usable.
type Options struct {
	// Keys are the C2SP verifier keys that the caller trusts, such as the log_key
	// published with a tenant. If any are given, checkpoint and file list must be
	// present and signed by one of them. If none are, the bundle's own keys are
	// taken on first use and the report says so.
	Keys []string

	// Strict holds foreign bundles to the rules for ours: what they lack is a
	// fault instead of not present.
	Strict bool

	Limits Limits

	// TempDir takes unpacked files, as large as events.jsonl and
	// chain-segment.json together. Empty is the system's.
	TempDir string

	// Progress is called now and then from the verifying goroutine; nil is not.
	Progress func(Progress)

	// Now is for the report's duration; nil is time.Now.
	Now func() time.Time
}

// Limits bound what a hostile bundle can cost. A zero field takes its default.
type Limits struct {
	Files      int   // in the bundle; default 4,000,000
	FileBytes  int64 // of one file, unpacked; default 16 GiB
	TotalBytes int64 // of all files, unpacked; default 64 GiB
}

const (
	// maxLine is the longest event, entry or file list line in bytes.
	maxLine = 1 << 20
	// maxDocument is the longest profile-claim.json, verifier-inputs.json or
	// SHA256SUMS.note, and the longest single value in the streamed documents.
	maxDocument = 1 << 20
	// maxName is the longest path in a bundle.
	maxName = 512
)

// Progress says how far a verification is.
type Progress struct {
	Phase string // "read" counts bytes of the container, "events" events
	Done  int64
	Total int64 // 0 is unknown
}

// every is how many bytes or events pass between calls of Progress.
const (
	progressBytes  = 16 << 20
	progressEvents = 1 << 13
)

func (o Options) complete() (Options, []note.Verifier, error) {
	if o.Limits.Files == 0 {
		o.Limits.Files = 4_000_000
	}
	if o.Limits.FileBytes == 0 {
		o.Limits.FileBytes = 16 << 30
	}
	if o.Limits.TotalBytes == 0 {
		o.Limits.TotalBytes = 64 << 30
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var keys []note.Verifier
	for i, k := range o.Keys {
		if slices.Contains(o.Keys[:i], k) {
			continue
		}
		v, err := note.NewVerifier(k)
		if err != nil {
			return o, nil, kernel.InvalidField("key", "%.80q is not a C2SP verifier key: %v", k, err)
		}
		keys = append(keys, v)
	}
	return o, keys, nil
}
