package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"golang.org/x/mod/sumdb/note"
	"provost.dev/provost/internal/kernel"
)

// Write exports the events of src as a bundle into dst, closes dst, and returns
// what it wrote; on error it aborts dst. Every event is checked on the way as a
// verifier would: hash, link, tenant, chain, rules of the profile, Merkle root.
// Errors are Invalid for bad parameters, Unprocessable for a selection without
// events or with events that the profile does not allow, Internal for a log or
// a store that contradicts itself, and whatever src and dst return.
//
// Memory is a few megabytes and some 40 bytes for each artifact; see
// Params.TempDir for the rest.
func Write(ctx context.Context, dst Sink, p Params, src Source) (s Summary, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, dst.Abort())
		}
	}()
	p, err = p.complete()
	if err != nil {
		return s, err
	}
	w, err := newWriter(ctx, dst, p, src)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, w.release()) }()
	if err := w.collect(); err != nil {
		return s, err
	}
	if err := w.emit(); err != nil {
		return s, err
	}
	if err := dst.Close(); err != nil {
		return s, fmt.Errorf("complete bundle: %w", err)
	}
	return w.summary, nil
}

// writer is one export under way: collect reads the source into spools, emit
// sends them to the sink.
type writer struct {
	ctx context.Context
	dst Sink
	p   Params
	src Source

	rules   rules
	hasher  *hasher
	chain   hash.Hash // over the newline-joined event hashes
	tenant  text
	chainID text

	events, segment, sums *spool
	refs                  *refSpool
	proof                 *proofWriter // nil without a log

	buf []byte
	// hashProfiles are those that the manifest or an event declares.
	hashProfiles []string
	last         digest // event_hash of the event before
	prior        string // hash before the first event, empty at genesis
	summary      Summary
}

func newWriter(ctx context.Context, dst Sink, p Params, src Source) (*writer, error) {
	w := &writer{
		ctx: ctx, dst: dst, p: p, src: src,
		rules: rules{profile: p.Profile}, hasher: newHasher(), chain: sha256.New(),
		tenant: textOf(p.TenantID), chainID: textOf(p.ChainID),
		events: newSpool(p.TempDir), segment: newSpool(p.TempDir), sums: newSpool(p.TempDir),
		refs: newRefSpool(p.TempDir),
	}
	if p.HashProfile != "" {
		w.hashProfiles = []string{p.HashProfile}
	}
	if src.Log == nil {
		return w, nil
	}
	var err error
	w.proof, err = newProofWriter(p.TempDir, src.Log)
	return w, err
}

func (w *writer) release() error {
	errs := []error{w.events.Close(), w.segment.Close(), w.sums.Close(), w.refs.Close()}
	if w.proof != nil {
		errs = append(errs, w.proof.body.Close())
	}
	return errors.Join(errs...)
}

// collect reads all events.
func (w *writer) collect() error {
	if _, err := io.WriteString(w.segment, "{\n  \"algorithm\": \"sha256\",\n  \"events\": ["); err != nil {
		return err
	}
	var e event
	for line, err := range w.src.Events {
		if err == nil {
			err = w.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if err := e.parse(line); err != nil {
			return kernel.Errorf(kernel.Internal, "", "event after sequence %d: %w", w.summary.To, err)
		}
		if err := w.add(&e); err != nil {
			return err
		}
	}
	if w.summary.Events == 0 {
		return kernel.Errorf(kernel.Unprocessable, "", "the selection has no events")
	}
	w.summary.BundleHash = w.joined().String()
	tail, err := members(segmentTail{
		Profile: w.p.Profile, From: w.summary.From, ProfileVersion: profileVersion, SegmentHash: w.summary.BundleHash,
		SegmentID: "seg-" + w.p.ExportID, TenantID: w.p.TenantID, To: w.summary.To,
	})
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintf(w.segment, "\n  ],\n%s\n}\n", tail); err != nil {
		return err
	}
	if w.proof != nil {
		return w.proof.end(w.ctx)
	}
	return nil
}

func (w *writer) joined() (d digest) {
	w.chain.Sum(d[:0])
	return d
}

func (w *writer) add(e *event) error {
	if err := w.checkEvent(e); err != nil {
		return err
	}
	sum, ok := parseHash(e.eventHash)
	if !ok || sum != w.hasher.event(e) {
		return w.corrupt(e, "event_hash does not recompute")
	}
	newRun, err := w.link(e)
	if err != nil {
		return err
	}
	if w.summary.Events > 0 {
		w.chain.Write([]byte{'\n'})
	}
	w.chain.Write(e.eventHash)
	if err := w.entry(e, newRun); err != nil {
		return err
	}
	w.buf = append(append(w.buf[:0], e.line...), '\n')
	if _, err := w.events.Write(w.buf); err != nil {
		return err
	}
	if w.proof != nil {
		if err := w.proof.add(w.ctx, e.sequence, w.hasher.leaf(e)); err != nil {
			return err
		}
	}
	w.last, w.summary.To = sum, e.sequence
	w.summary.Events++
	w.hashProfiles = e.addHashProfile(w.hashProfiles)
	return w.collectRefs(e)
}

// checkEvent applies the profile's rules and the export's own constants.
func (w *writer) checkEvent(e *event) (err error) {
	w.rules.check(e, func(step int, s severity, reason string) {
		if s == fault && err == nil {
			err = kernel.Errorf(kernel.Unprocessable, "", "event %s (sequence %d): %s", e.id, e.sequence, reason)
		}
	})
	switch {
	case err != nil:
		return err
	case !bytes.Equal(e.tenant, w.tenant):
		return w.corrupt(e, "tenant_id is not "+w.p.TenantID)
	case !bytes.Equal(e.chain, w.chainID):
		return w.corrupt(e, "chain_id is not "+w.p.ChainID)
	case e.sequence <= w.summary.To:
		return w.corrupt(e, "sequence does not ascend")
	case (e.sequence == 1) != (e.prevHash == nil):
		return w.corrupt(e, "prev_hash must be absent at sequence 1 and nowhere else")
	case len(e.line) > maxLine:
		return w.corrupt(e, fmt.Sprintf("has %d bytes, at most %d", len(e.line), maxLine))
	}
	return nil
}

func (w *writer) corrupt(e *event, reason string) error {
	return kernel.Errorf(kernel.Internal, "", "event %s (sequence %d): %s", e.id, e.sequence, reason)
}

// link checks the chain link inside a run, and reports whether e begins one.
func (w *writer) link(e *event) (newRun bool, err error) {
	if w.summary.Events > 0 && e.sequence == w.summary.To+1 {
		if prev, ok := parseHash(e.prevHash); !ok || prev != w.last {
			return false, w.corrupt(e, "prev_hash is not the event before")
		}
		return false, nil
	}
	if w.summary.Events == 0 {
		w.summary.From = e.sequence
		w.prior = string(e.prevHash)
	}
	w.summary.Runs++
	return true, nil
}

// entry appends e to the segment. Keys are in canonical order, so that the
// verifier's fast path applies.
func (w *writer) entry(e *event, newRun bool) error {
	b := w.buf[:0]
	if w.summary.Events > 0 {
		b = append(b, ',')
	}
	b = append(b, "\n{\"event_hash\":\""...)
	b = append(b, e.eventHash...)
	b = append(b, `","event_ref":"`...)
	b = append(b, e.pointer...)
	b = append(b, `","evidence_profile_id":"`...)
	b = append(b, w.p.Profile...)
	b = append(b, `","id":"`...)
	b = append(b, e.id...)
	b = append(b, `","prev_hash":`...)
	b = appendTextOrNull(b, e.prevHash)
	if newRun {
		b = append(b, `,"prior_event_hash":`...)
		b = appendTextOrNull(b, e.prevHash)
	}
	b = fmt.Appendf(b, `,"sequence":%d}`, e.sequence)
	w.buf = b
	_, err := w.segment.Write(b)
	return err
}

func appendTextOrNull(b []byte, t text) []byte {
	if t == nil {
		return append(b, "null"...)
	}
	return append(append(append(b, '"'), t...), '"')
}

// emit writes the files in the order of the package comment.
func (w *writer) emit() error {
	segmentRef := segmentRefStart + w.segment.digest().hex()
	claim := claimDocument{w.p.Profile, profileVersion, w.producer(), expectationsRef, w.p.Claim.covering(w.p.Profile, w.hashProfiles)}
	for _, write := range []func() error{
		func() error { return w.manifest(segmentRef) },
		func() error { return w.document(claimName, claim) },
		func() error { return w.document(inputsName, w.inputs(segmentRef)) },
		func() error { return w.file(segmentName, w.segment) },
		func() error { return w.file(eventsName, w.events) },
		func() error { return w.refs.each("", w.artifact) },
		func() error {
			if w.proof == nil {
				return nil
			}
			return w.file(proofName, w.proof.body)
		},
		w.sign,
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// sign writes the file list and its signature.
func (w *writer) sign() error {
	list := fileList{exportID: w.p.ExportID, bundleHash: w.summary.BundleHash, files: w.summary.Files, sums: w.sums.digest()}
	signed, err := note.Sign(&note.Note{Text: list.text()}, w.p.Signer)
	if err != nil {
		return fmt.Errorf("sign file list: %w", err)
	}
	r, err := w.sums.reader()
	if err != nil {
		return err
	}
	if err := w.dst.WriteFile(sumsName, w.sums.size, r); err != nil {
		return err
	}
	w.summary.Files += 2
	w.summary.Bytes += w.sums.size + int64(len(signed))
	return w.dst.WriteFile(noteName, int64(len(signed)), bytes.NewReader(signed))
}

func (w *writer) producer() producerIdentity {
	return producerIdentity{IssuerID: w.p.IssuerID, ProducerID: w.p.ProducerID}
}

func (w *writer) inputs(segmentRef string) inputsDocument {
	d := inputsDocument{
		Profile: w.p.Profile, ChainID: w.p.ChainID, From: w.summary.From, To: w.summary.To,
		EventMethod: eventMethod, SegmentMethod: joinMethod, BundleMethod: joinMethod, SegmentRef: segmentRef,
		ProfileVersion: profileVersion, Producer: w.producer(), ExpectationsRef: expectationsRef,
	}
	if w.p.HashProfile != "" {
		d.HashProfile = &w.p.HashProfile
	}
	if w.prior != "" {
		d.PriorEventHash = &w.prior
	}
	return d
}

// manifest writes manifest.json. With an artifact for every event it is long,
// so it is spooled first.
func (w *writer) manifest(segmentRef string) (err error) {
	head, err := members(manifestHead{
		SchemaVersion: schemaVersion, ExportID: w.p.ExportID, CreatedAt: w.p.CreatedAt.UTC().Format(time.RFC3339),
		ProviderID: w.p.ProviderID, TenantID: w.p.TenantID, Profile: w.p.Profile, ProfileVersion: profileVersion,
		Producer: w.producer(), ExpectationsRef: expectationsRef, HashProfile: w.p.HashProfile,
		Scope: w.summary.Scope, ChainID: w.p.ChainID, SegmentRef: segmentRef, BundleHash: w.summary.BundleHash,
		SigningKey: w.p.SigningKey,
	})
	if err != nil {
		return err
	}
	s := newSpool(w.p.TempDir)
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := fmt.Fprintf(s, "{\n%s,\n  \"artifacts\": {", head); err != nil {
		return err
	}
	for i, kind := range w.refs.kinds {
		if err := w.manifestKind(s, kind, i == 0); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(s, "\n  }\n}\n"); err != nil {
		return err
	}
	w.summary.ManifestHash = s.digest().String()
	return w.file(manifestName, s)
}

// manifestKind writes one list of manifest.artifacts.
func (w *writer) manifestKind(s *spool, kind string, first bool) error {
	if _, err := fmt.Fprintf(s, "%s\n    %q: [", comma(first), kind); err != nil {
		return err
	}
	first = true
	err := w.refs.each(kind, func(r ref) error {
		_, err := fmt.Fprintf(s, "%s\n      \"%s\"", comma(first), r.pointer())
		first = false
		return err
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(s, "\n    ]")
	return err
}

// comma separates elements.
func comma(first bool) string {
	if first {
		return ""
	}
	return ","
}

// artifact copies one artifact and makes sure that it is what its digest says.
func (w *writer) artifact(r ref) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	body, size, err := w.src.Artifact(w.ctx, r.pointer())
	if err != nil && kernel.KindOf(err) == kernel.NotFound {
		// The caller asked for an export, not for this artifact: it is our loss.
		return kernel.Errorf(kernel.Internal, "", "artifact %s of an event is not in the store: %w", r.pointer(), err)
	}
	if err != nil {
		return fmt.Errorf("open artifact %s: %w", r.pointer(), err)
	}
	sum := sha256.New()
	err = w.dst.WriteFile(r.sum.path(), size, io.TeeReader(body, sum))
	if cerr := body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("copy artifact %s: %w", r.pointer(), err)
	}
	if digest(sum.Sum(nil)) != r.sum {
		return kernel.Errorf(kernel.Internal, "", "artifact %s: the stored bytes have another digest", r.pointer())
	}
	w.summary.Artifacts++
	return w.listed(r.sum.path(), r.sum, size)
}

// file writes what was spooled.
func (w *writer) file(name string, s *spool) error {
	r, err := s.reader()
	if err != nil {
		return err
	}
	if err := w.dst.WriteFile(name, s.size, r); err != nil {
		return err
	}
	return w.listed(name, s.digest(), s.size)
}

// document writes a small document.
func (w *writer) document(name string, v any) error {
	b, err := document(v)
	if err != nil {
		return err
	}
	if err := w.dst.WriteFile(name, int64(len(b)), bytes.NewReader(b)); err != nil {
		return err
	}
	return w.listed(name, sha256.Sum256(b), int64(len(b)))
}

// listed adds a written file to the file list.
func (w *writer) listed(name string, sum digest, size int64) error {
	w.summary.Files++
	w.summary.Bytes += size
	w.buf = appendSum(w.buf[:0], sum, name)
	_, err := w.sums.Write(w.buf)
	return err
}

// marshalRun is a line of log-proof.json's runs.
func marshalRun(r proofRun) ([]byte, error) {
	if r.Left == nil {
		r.Left = [][]byte{}
	}
	if r.Right == nil {
		r.Right = [][]byte{}
	}
	return json.Marshal(r)
}
