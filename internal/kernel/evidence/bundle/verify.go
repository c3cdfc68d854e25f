package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/mod/sumdb/note"
)

// Verify checks the bundle at path, a directory, .tar.gz, .tar or .zip, without
// network and without trusting what made it. What is wrong with the bundle is in
// the report; errors are NotFound for a missing path, Invalid for one that is no
// bundle at all or for a malformed key, ctx's, or failures of this machine.
func Verify(ctx context.Context, path string, opts Options) (r *Report, err error) {
	c, err := openPath(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return verify(ctx, path, c, opts)
}

// VerifyFS checks the unpacked bundle at the root of fsys, as Verify does.
func VerifyFS(ctx context.Context, fsys fs.FS, opts Options) (*Report, error) {
	return verify(ctx, "", &dirContainer{fsys}, opts)
}

func verify(ctx context.Context, name string, c container, opts Options) (r *Report, err error) {
	opts, keys, err := opts.complete()
	if err != nil {
		return nil, err
	}
	start := opts.Now()
	v := &verifier{
		opts: opts, keys: keys, findings: newFindings(), idx: newIndex(opts.Limits, opts.TempDir), changed: map[string]bool{},
		report: Report{Bundle: name, Format: c.format()},
	}
	defer func() { err = errors.Join(err, v.idx.Close()) }()
	if err := v.run(ctx, c); err != nil {
		return nil, err
	}
	v.report.DurationMS = opts.Now().Sub(start).Milliseconds()
	return v.finish(), nil
}

// verifier is one verification under way.
type verifier struct {
	*findings
	opts   Options
	keys   []note.Verifier // trusted by the caller
	idx    *index
	report Report

	manifest manifest
	inputs   inputs
	claim    claim
	readable map[string]bool // documents that parsed
	own      bool            // written by us, going by what it carries
	lenient  bool
	changed  map[string]bool // files that the signed list knows to have changed

	root *signedRoot // of the log, nil if there is none to trust
	pass eventPass
}

// fail records a fault in a file.
func (v *verifier) fail(step int, file, format string, args ...any) {
	v.add(fault, Fault{Step: step, File: file, Reason: fmt.Sprintf(format, args...)})
}

func (v *verifier) warn(step int, file, format string, args ...any) {
	v.add(warning, Fault{Step: step, File: file, Reason: fmt.Sprintf(format, args...)})
}

// strictly is fail, but warn for foreign bundles.
func (v *verifier) strictly(step int, file, format string, args ...any) {
	s := fault
	if v.lenient {
		s = warning
	}
	v.add(s, Fault{Step: step, File: file, Reason: fmt.Sprintf(format, args...)})
}

// run does the steps. Their order here is by what needs what; the report is in
// the order of their numbers.
func (v *verifier) run(ctx context.Context, c container) error {
	readable, err := v.readContainer(ctx, c)
	if err != nil {
		return err
	}
	if !readable {
		v.skip("the archive could not be read to its end", allSteps()...)
		return nil
	}
	if err := v.readDocuments(); err != nil {
		return err
	}
	if err := v.checkFileList(); err != nil {
		return err
	}
	if err := v.checkCheckpoint(); err != nil {
		return err
	}
	if !v.readable[manifestName] {
		v.skip(manifestName+" cannot be read", allSteps()...)
		return nil
	}
	v.checkIdentity()
	if err := v.checkEvents(ctx); err != nil {
		return err
	}
	v.checkHashes()
	v.checkScope()
	v.checkClaim()
	return nil
}

func allSteps() []int {
	steps := make([]int, stepCount)
	for i := range steps {
		steps[i] = i
	}
	return steps[stepStructure:]
}

// readContainer is step 0. It reports whether every file could be read.
func (v *verifier) readContainer(ctx context.Context, c container) (readable bool, err error) {
	err = v.idx.fill(ctx, c, v.opts.Progress)
	v.report.Files, v.report.Bytes = v.idx.count, v.idx.bytes
	var d *damage
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &d):
		v.fail(stepArchive, d.file, "%v", d)
		return d.whole, nil
	}
	return false, err
}

// finish fills in the report.
func (v *verifier) finish() *Report {
	r := &v.report
	r.Faults, r.Warnings = v.count()
	r.OK = r.Faults == 0
	r.First = v.first(v.changed)
	r.Steps = slices.Clone(v.steps[:])
	r.Foreign = !v.own
	m := &v.manifest
	r.ExportID, r.CreatedAt, r.ProviderID, r.TenantID = m.exportID, m.createdAt, m.providerID, m.tenantID
	r.ChainID, r.Profile, r.BundleHash = m.chainID, m.profile, m.bundleHash
	r.Scope = v.pass.scope
	return r
}
