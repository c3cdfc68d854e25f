package supplychain

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512 for message.sum
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"provost.dev/provost/internal/kernel"
)

// Use is what a key is trusted for.
type Use string

// The uses, as the API names them.
const (
	UseSignature  Use = "signature"
	UseProvenance Use = "provenance"
	UseSBOM       Use = "sbom"
)

// TrustKey is a public key that a tenant trusts for some uses. It is immutable.
type TrustKey struct {
	name        string
	uses        []Use
	public      crypto.PublicKey // *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey
	algorithm   string
	fingerprint string
	hints       []string // how signatures may refer to this key
}

// Name is the tenant's name for the key.
func (k *TrustKey) Name() string { return k.name }

// Uses lists what the key is trusted for, sorted.
func (k *TrustKey) Uses() []Use { return slices.Clone(k.uses) }

// Algorithm is one of ecdsa-p256, ecdsa-p384, ed25519, rsa-<bits>.
func (k *TrustKey) Algorithm() string { return k.algorithm }

// Fingerprint is "sha256:" and the hex SHA-256 of the key's DER
// SubjectPublicKeyInfo, the value that
// "openssl pkey -pubin -outform der | sha256sum" prints.
func (k *TrustKey) Fingerprint() string { return k.fingerprint }

func (k *TrustKey) ref() KeyRef { return KeyRef{Name: k.name, Fingerprint: k.fingerprint} }

// trustedFor reports whether the key may vouch for use; any key may for "".
func (k *TrustKey) trustedFor(use Use) bool { return use == "" || slices.Contains(k.uses, use) }

// RSA keys below the minimum are breakable; above the maximum each check costs
// more than a stranger's signature deserves.
const (
	minRSABits  = 2048
	maxRSABits  = 8192
	maxKeyBytes = 16 << 10
)

// ParseTrustKey reads a PEM public key: SubjectPublicKeyInfo ("PUBLIC KEY", as
// cosign and openssl write it) or PKCS #1 ("RSA PUBLIC KEY"), with ECDSA on
// P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits. Errors are
// kernel.Invalid with the field at fault and a Fix; none repeats the input,
// which may be a private key pasted by mistake.
func ParseTrustKey(name string, text []byte, uses []Use) (*TrustKey, error) {
	if name == "" {
		return nil, kernel.InvalidField("name", "is empty")
	}
	if err := checkUses(uses); err != nil {
		return nil, err
	}
	public, err := parsePublicKey(text)
	if err != nil {
		return nil, err
	}
	algorithm, err := algorithmOf(public)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	sshKey, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key for its SSH fingerprint: %w", err)
	}
	sum := sha256.Sum256(spki)
	k := &TrustKey{
		name: name, uses: slices.Clone(uses), public: public, algorithm: algorithm,
		fingerprint: "sha256:" + hex.EncodeToString(sum[:]),
		hints: []string{
			base64.StdEncoding.EncodeToString(sum[:]),                // cosign 3, in bundles
			"SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), // npm
			ssh.FingerprintSHA256(sshKey),                            // go-securesystemslib, thus Tekton Chains
			hex.EncodeToString(sum[:]),
			"sha256:" + hex.EncodeToString(sum[:]),
		},
	}
	slices.Sort(k.uses)
	k.uses = slices.Compact(k.uses)
	return k, nil
}

func checkUses(uses []Use) error {
	if len(uses) == 0 {
		return kernel.InvalidField("uses", "is empty; give one or more of signature, provenance, sbom")
	}
	for _, u := range uses {
		if u != UseSignature && u != UseProvenance && u != UseSBOM {
			return kernel.InvalidField("uses", "%.40q is not one of signature, provenance, sbom", string(u))
		}
	}
	return nil
}

const spkiFix = "paste the text that starts with -----BEGIN PUBLIC KEY-----, such as the file cosign.pub"

func keyError(fix, format string, args ...any) *kernel.Error {
	err := kernel.InvalidField("public_key", format, args...)
	err.Fix = fix
	return err
}

func parsePublicKey(text []byte) (crypto.PublicKey, error) {
	text = bytes.TrimSpace(text)
	if err := refuseOtherKinds(text); err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil || !bytes.HasPrefix(text, []byte("-----BEGIN")):
		return nil, keyError(spkiFix, "is not a PEM public key")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, keyError("register each key under its own name", "has more than one PEM block, or text after the key")
	}
	var public crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		return nil, keyError("extract its key: openssl x509 -in cert.pem -noout -pubkey", "is a certificate; trust keys are plain public keys")
	default:
		return nil, keyError(spkiFix, "is a PEM block that is no public key")
	}
	if err != nil {
		bad := keyError(spkiFix, "does not decode as a public key")
		bad.Err = err
		return nil, bad
	}
	return public, nil
}

// refuseOtherKinds recognises what people paste instead of a PEM public key.
func refuseOtherKinds(text []byte) error {
	has := func(prefix string) bool { return bytes.HasPrefix(text, []byte(prefix)) }
	switch {
	case bytes.Contains(text, []byte("PRIVATE KEY")):
		return keyError("paste the public half: cosign public-key --key cosign.key, or openssl pkey -in key.pem -pubout; "+
			"replace this key pair if the text may have been seen", "is a private key, which must not leave its owner")
	case len(text) > maxKeyBytes:
		return keyError(spkiFix, "has %d bytes, more than any public key", len(text))
	case has("ssh-"), has("ecdsa-sha2-"), has("sk-"):
		return keyError("convert it: ssh-keygen -e -m pkcs8 -f key.pub", "is an SSH public key")
	case has("{"):
		return keyError("convert it to PEM (SubjectPublicKeyInfo)", "is JSON, perhaps a JWK")
	case has("-----BEGIN PGP"):
		return keyError("sign with cosign, whose keys are PEM", "is a PGP key")
	}
	return nil
}

func algorithmOf(public crypto.PublicKey) (string, error) {
	const fix = "use ECDSA on P-256 or P-384, Ed25519, or RSA of at least 2048 bits: cosign generate-key-pair makes ECDSA P-256"
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return "ecdsa-p256", nil
		case elliptic.P384():
			return "ecdsa-p384", nil
		}
		return "", keyError(fix, "is an ECDSA key on %s", k.Params().Name)
	case ed25519.PublicKey:
		return "ed25519", nil
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		if bits < minRSABits || bits > maxRSABits {
			return "", keyError(fix, "is an RSA key of %d bits", bits)
		}
		return fmt.Sprintf("rsa-%d", bits), nil
	}
	return "", keyError(fix, "is of a kind that signs no images (%T)", public)
}

// message is what a signature is over, with its hashes computed once however
// many keys are tried.
type message struct {
	raw  []byte
	sums map[crypto.Hash][]byte
}

func newMessage(raw []byte) *message {
	return &message{raw: raw, sums: make(map[crypto.Hash][]byte)}
}

func (m *message) sum(h crypto.Hash) []byte {
	if m.sums[h] == nil {
		w := h.New()
		w.Write(m.raw)
		m.sums[h] = w.Sum(nil)
	}
	return m.sums[h]
}

// verifies reports whether sig is the key's signature of m, in any way that
// signers of this ecosystem use the key. For P-384, cosign 3 and DSSE
// libraries hash with SHA-384, older cosign with SHA-256; with Ed25519,
// messages are signed pure or pre-hashed (RFC 8032 Ed25519ph).
func (k *TrustKey) verifies(m *message, sig []byte) bool {
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P384() && ecdsa.VerifyASN1(public, m.sum(crypto.SHA384), sig) {
			return true
		}
		return ecdsa.VerifyASN1(public, m.sum(crypto.SHA256), sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, m.sum(crypto.SHA256), sig) == nil
	case ed25519.PublicKey:
		if len(sig) != ed25519.SignatureSize {
			return false
		}
		return ed25519.Verify(public, m.raw, sig) ||
			ed25519.VerifyWithOptions(public, m.sum(crypto.SHA512), sig, &ed25519.Options{Hash: crypto.SHA512}) == nil
	}
	return false
}
