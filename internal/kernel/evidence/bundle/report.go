package bundle

import (
	"fmt"
	"strings"
)

// Steps of verification. 1 to 17 are the contract's (ecs.md §5.6), the others ours.
const (
	stepArchive = iota
	stepStructure
	stepProfile
	stepProducer
	stepEnvelope
	stepEventHash
	stepLinks
	stepSequence
	stepSegment
	stepHashes
	stepSegmentRef
	stepScope
	stepArtifacts
	stepSnapshots
	stepRefusals
	stepLineage
	stepSignatures
	stepClaim
	stepFileList
	stepMerkle
	stepCheckpoint
	stepCount
)

var stepNames = [stepCount]string{
	"archive", "structure", "profile", "producer", "envelope", "event hashes", "chain links", "sequence", "segment entries",
	"segment and bundle hash", "segment reference", "scope", "artifacts", "snapshots", "refusals", "proof artifacts and lineage",
	"signatures", "profile claim", "file list", "merkle root", "checkpoint",
}

// Status is how a step ended.
type Status string

// The four ways.
const (
	OK         Status = "ok"
	Failed     Status = "failed"
	Skipped    Status = "skipped"     // it could not be done; Note says why
	NotPresent Status = "not_present" // the bundle does not carry what the step checks
)

// Report is what a verification found.
type Report struct {
	OK     bool   `json:"ok"`
	Bundle string `json:"bundle"` // the path or name given
	Format string `json:"format"` // directory, tar.gz, tar or zip

	// Foreign bundles carry no signed file list: what only that list protects,
	// such as times in the manifest, may have been changed unnoticed.
	Foreign bool `json:"foreign"`

	// First is the fault to look at first: the earliest step's, but in a file
	// that the signed list knows to have changed if there is one.
	First    *Fault `json:"first_fault,omitempty"`
	Faults   int    `json:"faults"`
	Warnings int    `json:"warnings"`

	ExportID   string `json:"export_id,omitempty"`
	CreatedAt  string `json:"created_at,omitempty"`
	ProviderID string `json:"provider_id,omitempty"`
	TenantID   string `json:"tenant_id,omitempty"`
	ChainID    string `json:"chain_id,omitempty"`
	Profile    string `json:"evidence_profile_id,omitempty"`
	BundleHash string `json:"bundle_hash,omitempty"`
	Scope      Scope  `json:"scope"`
	Files      int    `json:"files"`
	Bytes      int64  `json:"bytes"` // of the files, unpacked

	Signature  *Signature  `json:"signature,omitempty"`
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
	Steps      []Step      `json:"steps"`
	DurationMS int64       `json:"duration_ms"`
}

// Scope is what events.jsonl was found to hold.
type Scope struct {
	From   uint64 `json:"from_sequence"`
	To     uint64 `json:"to_sequence"`
	Events uint64 `json:"events"`
	Runs   uint64 `json:"runs"` // of consecutive sequences
}

// Trust says where a verification key came from.
type Trust string

const (
	// Given keys were supplied by the caller.
	Given Trust = "given"
	// FirstUse keys came from the bundle itself: the signature shows that the
	// bundle is whole, not who made it. Compare the key with one had elsewhere.
	FirstUse Trust = "first_use"
)

// Signature is a signature that verified.
type Signature struct {
	Key   string `json:"key"`    // C2SP verifier key
	KeyID string `json:"key_id"` // name and hash, as signature lines show it
	Trust Trust  `json:"trust"`
}

// Checkpoint is the signed tree head that the events were proved against.
type Checkpoint struct {
	Origin   string `json:"origin"`
	TreeSize uint64 `json:"tree_size"`
	RootHash string `json:"root_hash"` // base64, as in the checkpoint
	Signature
}

// Step is the outcome of one step. Fault and Warning are its first.
type Step struct {
	Number   int    `json:"step"`
	Name     string `json:"name"`
	Status   Status `json:"status"`
	Note     string `json:"note,omitempty"`
	Faults   int    `json:"faults,omitempty"`
	Fault    *Fault `json:"fault,omitempty"`
	Warnings int    `json:"warnings,omitempty"`
	Warning  *Fault `json:"warning,omitempty"`
}

// Fault is one thing that is wrong, and where.
type Fault struct {
	Step     int    `json:"step"`
	Name     string `json:"name"` // of the step
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	EventID  string `json:"event_id,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Reason   string `json:"reason"`
}

func (f Fault) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "step %d (%s): ", f.Step, f.Name)
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, " line %d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.EventID != "" {
		fmt.Fprintf(&b, "event %s (sequence %d): ", f.EventID, f.Sequence)
	}
	b.WriteString(f.Reason)
	return b.String()
}

// findings collects faults and warnings while a bundle is read.
type findings struct {
	steps [stepCount]Step
	// byFile keeps the first fault of each step in each file, so that First can
	// be chosen once the changed files are known. Bounded by maxByFile.
	byFile map[fileStep]Fault
	order  []fileStep
}

type fileStep struct {
	file string
	step int
}

const maxByFile = 1000

func newFindings() *findings {
	f := &findings{byFile: map[fileStep]Fault{}}
	for i := range f.steps {
		f.steps[i] = Step{Number: i, Name: stepNames[i], Status: OK}
	}
	return f
}

// add records ft under its step.
func (f *findings) add(s severity, ft Fault) {
	st := &f.steps[ft.Step]
	ft.Name = st.Name
	if s == warning {
		if st.Warnings++; st.Warning == nil {
			st.Warning = &ft
		}
		return
	}
	if st.Faults++; st.Fault == nil {
		st.Fault = &ft
	}
	st.Status, st.Note = Failed, ""
	k := fileStep{ft.File, ft.Step}
	if _, seen := f.byFile[k]; !seen && len(f.byFile) < maxByFile {
		f.byFile[k] = ft
		f.order = append(f.order, k)
	}
}

// set gives a step without faults another status than OK.
func (f *findings) set(step int, status Status, note string) {
	if st := &f.steps[step]; st.Status != Failed {
		st.Status, st.Note = status, note
	}
}

// skip marks the steps from first to last that have found nothing as skipped.
func (f *findings) skip(note string, steps ...int) {
	for _, s := range steps {
		if f.steps[s].Status == OK {
			f.set(s, Skipped, note)
		}
	}
}

// count returns how many faults there are in all.
func (f *findings) count() (faults, warnings int) {
	for i := range f.steps {
		faults += f.steps[i].Faults
		warnings += f.steps[i].Warnings
	}
	return faults, warnings
}

// first chooses the fault to show. A changed file makes checks fail that read
// other files, too: a new tenant in the manifest is a wrong tenant in every
// event. So a fault in a file that the list knows to have changed goes first.
func (f *findings) first(changed map[string]bool) *Fault {
	var best *Fault
	better := func(ft *Fault) bool {
		if best == nil || changed[ft.File] != changed[best.File] {
			return best == nil || changed[ft.File]
		}
		return ft.Step < best.Step
	}
	for _, k := range f.order {
		if ft := f.byFile[k]; better(&ft) {
			best = &ft
		}
	}
	return best
}
