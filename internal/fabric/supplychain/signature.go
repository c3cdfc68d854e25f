package supplychain

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// signature is one signature with what it says about its signer.
type signature struct {
	bytes []byte
	claimedSigner
}

// claimedSigner is what a signature says about who made it. Nothing signs
// that, so it never decides whether a signature verifies, only how its failure is named.
type claimedSigner struct {
	hint        string // a key id or fingerprint; may be empty
	certificate bool   // made with a certificate's key ("keyless")
}

// convinced returns the trusted keys that verify any of the signatures, by
// name. If there is none the error is a *defect that says why, as far as can be told.
func (v *verification) convinced(ctx context.Context, m *message, sigs []signature, use Use) ([]KeyRef, error) {
	var keys []KeyRef
	for _, s := range sigs {
		// The key the signature names first: with many keys that saves the others' turn.
		for _, k := range v.byHint(s.hint) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if k.trustedFor(use) && k.verifies(m, s.bytes) {
				keys = append(keys, k.ref())
				break
			}
		}
	}
	if len(keys) == 0 {
		return nil, v.unconvinced(ctx, m, sigs, use)
	}
	slices.SortFunc(keys, func(a, b KeyRef) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(keys), nil
}

// byHint returns the keys, those that hint names first.
func (v *verification) byHint(hint string) []*TrustKey {
	keys := slices.Clone(v.keys)
	slices.SortStableFunc(keys, func(a, b *TrustKey) int {
		return cmp.Compare(b.isNamedBy(hint), a.isNamedBy(hint))
	})
	return keys
}

// isNamedBy returns 1 if hint names the key, else 0.
func (k *TrustKey) isNamedBy(hint string) int {
	if hint != "" && slices.Contains(k.hints, hint) {
		return 1
	}
	return 0
}

// unconvinced says why no key verifies the signatures. The first reason that
// applies is the answer, the most telling first.
func (v *verification) unconvinced(ctx context.Context, m *message, sigs []signature, use Use) error {
	for _, s := range sigs {
		for _, k := range v.keys {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !k.trustedFor(use) && k.verifies(m, s.bytes) {
				return defectf(KeyNotForUse, "signed by key %q, which is trusted for %s only", k.name, joinUses(k.uses))
			}
		}
	}
	for _, s := range sigs {
		for _, k := range v.keys {
			if k.isNamedBy(s.hint) == 1 {
				return defectf(BadSignature, "says it is signed by key %q, and is not: it or what it signs was changed", k.name)
			}
		}
	}
	for _, s := range sigs {
		if s.certificate {
			return defectf(UnknownKey, "signed with a certificate (keyless), not with a trusted key")
		}
	}
	for _, s := range sigs {
		if s.hint != "" {
			return defectf(UnknownKey, "signed by key %.100q, which is not trusted", s.hint)
		}
	}
	if len(v.keys) == 0 {
		return defectf(UnknownKey, "no key is trusted")
	}
	return defectf(NoKeyVerifies, "no trusted key verifies it: it is forged, or signed by a key that is not trusted")
}

func joinUses(uses []Use) string {
	words := make([]string, len(uses))
	for i, u := range uses {
		words[i] = string(u)
	}
	return strings.Join(words, ", ")
}

// subjectOf returns the subject that one of the signed digests names, the
// image before its index.
func (v *verification) subjectOf(digests []string) (subject, error) {
	for _, s := range v.subjects {
		if slices.Contains(digests, string(s.Digest)) {
			return s, nil
		}
	}
	if len(digests) == 0 {
		return subject{}, defectf(WrongSubject, "about nothing that is named by SHA-256")
	}
	return subject{}, defectf(WrongSubject, "about %.80s, not about the image", digests[0])
}

func (o *origin) proof(kind Kind, s subject, keys []KeyRef) Proof {
	return Proof{Kind: kind, Format: o.format, Subject: s.Digest, On: s.on, Keys: keys, Manifest: o.manifest, Layer: o.layer}
}
