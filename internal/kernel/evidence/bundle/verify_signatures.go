package bundle

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// signer chooses the keys to check a signature with: the caller's, or else the
// one the bundle itself names.
func (v *verifier) signer(named string) ([]note.Verifier, Trust, error) {
	if len(v.keys) > 0 {
		return v.keys, Given, nil
	}
	key, err := note.NewVerifier(named)
	if err != nil {
		return nil, FirstUse, fmt.Errorf("%s is not a C2SP verifier key: %w", quoted(named), err)
	}
	return []note.Verifier{key}, FirstUse, nil
}

// signature describes the key behind a verified signature.
func (v *verifier) signature(sig note.Signature, trust Trust, named string) Signature {
	s := Signature{KeyID: fmt.Sprintf("%s+%08x", sig.Name, sig.Hash), Trust: trust}
	for _, k := range append([]string{named}, v.opts.Keys...) {
		if strings.HasPrefix(k, s.KeyID+"+") {
			s.Key = k
		}
	}
	return s
}

// checkFileList is step 16 for our own signature and step 18.
func (v *verifier) checkFileList() error {
	m := &v.manifest
	if !v.own && !v.opts.Strict && len(v.keys) == 0 {
		v.set(stepFileList, NotPresent, "no signed list of the files: changes that the other steps cannot see stay unseen")
		if m.signatures > 0 {
			v.set(stepSignatures, Skipped, fmt.Sprintf("%d signatures in the manifest name no key that could be had offline", m.signatures))
		} else {
			v.set(stepSignatures, NotPresent, "")
		}
		return nil
	}
	for _, name := range [...]string{noteName, sumsName} {
		if v.idx.files[name] == nil {
			v.fail(stepFileList, name, "the file is missing")
		}
	}
	if m.signingKey == "" && v.readable[manifestName] && len(v.keys) == 0 {
		v.fail(stepSignatures, manifestName, "signing_key is missing")
		v.changed[manifestName] = true
	}
	list, ok, err := v.openList()
	if err != nil {
		return err
	}
	if !ok {
		v.skip("the list's signature could not be checked", stepFileList)
		return nil
	}
	if v.readable[manifestName] && (list.exportID != m.exportID || list.bundleHash != m.bundleHash) {
		v.fail(stepSignatures, manifestName, "export_id and bundle_hash are not those that were signed")
	}
	return v.compareList(list)
}

// openList verifies SHA256SUMS.note.
func (v *verifier) openList() (l fileList, ok bool, err error) {
	signed, err := v.idx.small(noteName)
	if err != nil && broken(err) {
		return l, false, err
	}
	if err != nil {
		v.fail(stepSignatures, noteName, "%v", err)
		return l, false, nil
	}
	if signed == nil || (v.manifest.signingKey == "" && len(v.keys) == 0) {
		return l, false, nil // said already
	}
	keys, trust, err := v.signer(v.manifest.signingKey)
	if err != nil {
		v.fail(stepSignatures, manifestName, "signing_key: %v", err)
		v.changed[manifestName] = true
		return l, false, nil
	}
	n, err := note.Open(signed, note.VerifierList(keys...))
	if err != nil {
		v.fail(stepSignatures, noteName, "%s", noteError(err))
		return l, false, nil
	}
	if l, ok = parseFileList(n.Text); !ok {
		v.fail(stepSignatures, noteName, "the signed text is not a file list's")
		return l, false, nil
	}
	s := v.signature(n.Sigs[0], trust, v.manifest.signingKey)
	v.report.Signature = &s
	return l, true, nil
}

// noteError says in words what is wrong with a signed note.
func noteError(err error) string {
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		return "not signed by a key that is trusted here"
	case errors.As(err, &invalid):
		return "the signature does not fit the text"
	}
	return err.Error()
}

// compareList is step 18: every file is as listed, and no other file is there.
func (v *verifier) compareList(list fileList) error {
	sums := v.idx.files[sumsName]
	if sums == nil {
		return nil // said already
	}
	if sums.sum != list.sums {
		v.fail(stepFileList, sumsName, "the file is %s, signed was %s", sums.sum, list.sums)
		v.changed[sumsName] = true
		return nil
	}
	r, err := sums.body.reader()
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(r, maxName+256)
	n := 0
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil && broken(err) {
			return err
		}
		n++
		sum, name, ok := parseSum(bytes.TrimSuffix(line, []byte{'\n'}))
		if err != nil || !ok {
			v.add(fault, Fault{Step: stepFileList, File: sumsName, Line: n, Reason: "not a line of a file list"})
			return nil
		}
		v.compareListed(string(name), sum)
	}
	if n != list.files {
		v.fail(stepFileList, sumsName, "%d files listed, %d signed", n, list.files)
	}
	v.findUnlisted()
	return nil
}

// change marks a file as known to have changed.
func (v *verifier) change(name, format string, args ...any) {
	if len(v.changed) < maxByFile {
		v.changed[name] = true
	}
	v.fail(stepFileList, name, format, args...)
}

func (v *verifier) compareListed(name string, sum digest) {
	if d, ok := artifactName(name); ok {
		if _, intact := v.idx.intact[d]; intact {
			v.idx.intact[d] = true
			if d != sum {
				v.change(name, "the file is %s, signed was %s", d, sum)
			}
			return
		}
	}
	f := v.idx.files[name]
	if f == nil {
		v.change(name, "the file is listed but missing")
		return
	}
	f.listed = true
	if f.sum != sum {
		v.change(name, "the file is %s, signed was %s", f.sum, sum)
	}
}

func (v *verifier) findUnlisted() {
	var names []string
	for name, f := range v.idx.files {
		if !f.listed && name != sumsName && name != noteName {
			names = append(names, name)
		}
	}
	for d, listed := range v.idx.intact {
		if !listed {
			names = append(names, d.path())
		}
	}
	slices.Sort(names)
	for _, name := range names {
		v.change(name, "the file is not in the signed list")
	}
}

// signedRoot is a Merkle root that the log signed.
type signedRoot struct {
	size uint64
	hash []byte
}

// checkCheckpoint is step 20, and finds the root for step 19.
func (v *verifier) checkCheckpoint() error {
	r, err := v.idx.open(proofName)
	if err != nil {
		return err
	}
	if r == nil {
		if v.opts.Strict || len(v.keys) > 0 {
			v.fail(stepMerkle, proofName, "the file is missing")
			v.skip(proofName+" is missing", stepCheckpoint)
			return nil
		}
		v.set(stepMerkle, NotPresent, "no Merkle proof: the events are not tied to what the log showed to others")
		v.set(stepCheckpoint, NotPresent, "")
		return nil
	}
	var p proof
	if err := p.read(r); err != nil {
		if broken(err) {
			return err
		}
		v.fail(stepMerkle, proofName, "%v", err)
		v.skip(proofName+" cannot be read", stepCheckpoint)
		return nil
	}
	v.openRoot(p)
	if v.root == nil {
		v.skip("there is no signed root to compare with", stepMerkle)
	}
	return nil
}

// openRoot verifies the checkpoint.
func (v *verifier) openRoot(p proof) {
	keys, trust, err := v.signer(p.key)
	if err != nil {
		v.fail(stepCheckpoint, proofName, "log_key: %v", err)
		return
	}
	if v.readable[manifestName] && !strings.HasSuffix(p.origin, "/"+v.manifest.tenantID) {
		v.fail(stepCheckpoint, proofName, "origin %s is not the log of tenant %s", quoted(p.origin), quoted(v.manifest.tenantID))
	}
	c, sig, err := openCheckpoint([]byte(p.checkpoint), keys...)
	if err != nil {
		v.fail(stepCheckpoint, proofName, "checkpoint: %v", err)
		return
	}
	if c.Origin != p.origin || c.Size != p.treeSize {
		v.fail(stepCheckpoint, proofName, "the checkpoint is of %s at size %d, the proof of %s at size %d", quoted(c.Origin), c.Size, quoted(p.origin), p.treeSize)
		return
	}
	v.root = &signedRoot{size: c.Size, hash: c.Hash}
	v.report.Checkpoint = &Checkpoint{
		Origin: c.Origin, TreeSize: c.Size, RootHash: base64.StdEncoding.EncodeToString(c.Hash), Signature: v.signature(sig, trust, p.key),
	}
}
