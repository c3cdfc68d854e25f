package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Names of the files at the root of a bundle.
const (
	manifestName = "manifest.json"
	eventsName   = "events.jsonl"
	segmentName  = "chain-segment.json"
	inputsName   = "verifier-inputs.json"
	claimName    = "profile-claim.json"
	proofName    = "log-proof.json"
	sumsName     = "SHA256SUMS"
	noteName     = "SHA256SUMS.note"

	artifactDir    = "artifacts/"
	artifactPrefix = artifactDir + "sha256-"
)

// Fixed words of the contract (ecs.md §5.2-5.4).
const (
	schemaVersion   = "1.0"
	profileVersion  = "1.0"
	expectationsRef = "docs/evidence/verifier-responsibilities.md"
	eventMethod     = "sha256(canonical_json(event) without event_hash)"
	joinMethod      = "sha256(newline-joined event_hash values)"
	segmentRefStart = "eosc://evidence/chain/sha256:"
)

// digest is a SHA-256.
type digest [sha256.Size]byte

func (d digest) hex() string    { return hex.EncodeToString(d[:]) }
func (d digest) String() string { return "sha256:" + d.hex() }

// path is where an artifact with this digest lies in the bundles we write.
func (d digest) path() string { return artifactPrefix + d.hex() }

// parseHex reads 64 lower-case hex digits. Upper case is refused: one digest
// has one spelling.
func parseHex[S ~string | ~[]byte](s S) (d digest, ok bool) {
	if len(s) != 2*len(d) {
		return d, false
	}
	for i := range d {
		hi, lo := nibble[s[2*i]], nibble[s[2*i+1]]
		if hi|lo > 15 {
			return digest{}, false
		}
		d[i] = hi<<4 | lo
	}
	return d, true
}

// nibble is the value of a lower-case hex digit, 0xff for other bytes.
var nibble = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()

const hashPrefix = "sha256:"

// parseHash reads "sha256:<hex>".
func parseHash[S ~string | ~[]byte](s S) (d digest, ok bool) {
	if len(s) < len(hashPrefix) || string(s[:len(hashPrefix)]) != hashPrefix {
		return d, false
	}
	return parseHex(s[len(hashPrefix):])
}

// Beginnings of content-addressed pointers (ecs.md §4.5).
const (
	evidenceScheme = "eosc://evidence/"
	artifactScheme = "eosc://artifact/"
)

// parsePointer reads a content-addressed pointer, either scheme. Pointers of
// other forms exist in foreign bundles; they name nothing a verifier can check.
func parsePointer[S ~string | ~[]byte](s S) (d digest, ok bool) {
	const n = len(evidenceScheme)
	if len(s) < n || (string(s[:n]) != evidenceScheme && string(s[:n]) != artifactScheme) {
		return d, false
	}
	return parseHash(s[n:])
}

// parseRef reads what events use to name artifacts: a pointer, or the bare
// "sha256:<hex>" of snapshot ids.
func parseRef[S ~string | ~[]byte](s S) (d digest, ok bool) {
	if d, ok = parseHash(s); ok {
		return d, true
	}
	return parsePointer(s)
}

// artifactName returns the digest that an artifact's path promises.
func artifactName(path string) (d digest, ok bool) {
	name, ok := strings.CutPrefix(path, artifactPrefix)
	if !ok {
		return d, false
	}
	return parseHex(name)
}
