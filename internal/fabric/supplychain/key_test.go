package supplychain

import (
	"bytes"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"provost.dev/provost/internal/kernel"
)

func TestParseTrustKeyAccepts(t *testing.T) {
	rsaKey := newRSA(2048)
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(rsaKey.Public().(*rsa.PublicKey))})
	p256 := newECDSA(elliptic.P256())
	for name, test := range map[string]struct {
		signer signer
		text   []byte
		want   string
	}{
		"P-256":            {p256, p256.pem(t), "ecdsa-p256"},
		"surrounded":       {p256, slices.Concat([]byte("\n  "), p256.pem(t), []byte("\n\n")), "ecdsa-p256"},
		"Windows newlines": {p256, bytes.ReplaceAll(p256.pem(t), []byte("\n"), []byte("\r\n")), "ecdsa-p256"},
		"RSA":              {rsaKey, rsaKey.pem(t), "rsa-2048"},
		"RSA in PKCS #1":   {rsaKey, pkcs1, "rsa-2048"},
	} {
		k, err := ParseTrustKey("k", test.text, []Use{UseSBOM, UseSignature, UseSBOM})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		der, _ := pem.Decode(test.signer.pem(t))
		sum := sha256.Sum256(der.Bytes)
		if want := "sha256:" + hex.EncodeToString(sum[:]); k.Fingerprint() != want || k.Algorithm() != test.want || k.Name() != "k" {
			t.Errorf("%s: got %s %s %s, want %s %s", name, k.Name(), k.Algorithm(), k.Fingerprint(), test.want, want)
		}
		if !slices.Equal(k.Uses(), []Use{UseSBOM, UseSignature}) {
			t.Errorf("%s: got uses %v", name, k.Uses())
		}
	}
}

func TestParseTrustKeyRefuses(t *testing.T) {
	good := releaseKey.pem(t)
	private, err := x509.MarshalPKCS8PrivateKey(releaseKey.Signer)
	if err != nil {
		t.Fatal(err)
	}
	spki := func(public any) []byte {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(releaseKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: private})
	}
	short := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(3), 1020), E: 65537}
	huge := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(3), 16382), E: 65537}
	for name, test := range map[string]struct {
		name  string
		text  []byte
		uses  []Use
		field string
		want  string // in the message and its fix
	}{
		"no name":               {"", good, []Use{UseSBOM}, "name", "empty"},
		"no use":                {"k", good, nil, "uses", "signature, provenance, sbom"},
		"unknown use":           {"k", good, []Use{"sboms"}, "uses", "sboms"},
		"nothing":               {"k", nil, []Use{UseSBOM}, "public_key", "BEGIN PUBLIC KEY"},
		"words":                 {"k", []byte("my key"), []Use{UseSBOM}, "public_key", "not a PEM"},
		"private key":           {"k", block("PRIVATE KEY"), []Use{UseSBOM}, "public_key", "cosign public-key"},
		"EC private key":        {"k", block("EC PRIVATE KEY"), []Use{UseSBOM}, "public_key", "private"},
		"cosign private key":    {"k", block("ENCRYPTED SIGSTORE PRIVATE KEY"), []Use{UseSBOM}, "public_key", "private"},
		"private and public":    {"k", append(block("PRIVATE KEY"), good...), []Use{UseSBOM}, "public_key", "private"},
		"broken private key":    {"k", block("PRIVATE KEY")[:60], []Use{UseSBOM}, "public_key", "private"},
		"two keys":              {"k", append(bytes.Clone(good), good...), []Use{UseSBOM}, "public_key", "own name"},
		"text before the key":   {"k", append([]byte("x\n"), good...), []Use{UseSBOM}, "public_key", "not a PEM"},
		"text after the key":    {"k", append(bytes.Clone(good), 'x'), []Use{UseSBOM}, "public_key", "text after"},
		"certificate":           {"k", block("CERTIFICATE"), []Use{UseSBOM}, "public_key", "openssl x509"},
		"certificate request":   {"k", block("CERTIFICATE REQUEST"), []Use{UseSBOM}, "public_key", "no public key"},
		"SSH key":               {"k", ssh.MarshalAuthorizedKey(sshKey), []Use{UseSBOM}, "public_key", "ssh-keygen"},
		"PGP key":               {"k", []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), []Use{UseSBOM}, "public_key", "PGP"},
		"JWK":                   {"k", []byte(`{"kty":"EC"}`), []Use{UseSBOM}, "public_key", "JWK"},
		"garbage in the block":  {"k", block("PUBLIC KEY"), []Use{UseSBOM}, "public_key", "does not decode"},
		"key with bytes after":  {"k", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(derOf(good), 0)}), []Use{UseSBOM}, "public_key", "does not decode"},
		"P-224":                 {"k", spki(newECDSA(elliptic.P224()).Public()), []Use{UseSBOM}, "public_key", "P-224"},
		"P-521":                 {"k", spki(newECDSA(elliptic.P521()).Public()), []Use{UseSBOM}, "public_key", "P-521"},
		"X25519":                {"k", spki(x25519.Public()), []Use{UseSBOM}, "public_key", "signs no images"},
		"short RSA":             {"k", spki(short), []Use{UseSBOM}, "public_key", "1022 bits"},
		"huge RSA":              {"k", spki(huge), []Use{UseSBOM}, "public_key", "16384 bits"},
		"more than any key has": {"k", bytes.Repeat([]byte("x"), maxKeyBytes+1), []Use{UseSBOM}, "public_key", "more than any"},
	} {
		k, err := ParseTrustKey(test.name, test.text, test.uses)
		bad, ok := errors.AsType[*kernel.Error](err)
		if k != nil || !ok || bad.Kind != kernel.Invalid || bad.Field != test.field {
			t.Errorf("%s: got %v, %v, want Invalid for %s", name, k, err, test.field)
			continue
		}
		said := bad.Error() + " " + bad.Fix
		if !strings.Contains(said, test.want) {
			t.Errorf("%s: %q and its fix %q do not say %q", name, bad, bad.Fix, test.want)
		}
		if test.field == "public_key" && bad.Fix == "" {
			t.Errorf("%s: no fix", name)
		}
		for _, line := range strings.Split(string(test.text), "\n") {
			if len(line) > 20 && !strings.HasPrefix(line, "-----") && strings.Contains(said, line) {
				t.Errorf("%s: the error repeats the input: %q", name, said)
			}
		}
	}
}

func derOf(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}

func FuzzParseTrustKey(f *testing.F) {
	f.Add(newEd25519().pem(&testing.T{}))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParseTrustKey("k", text, []Use{UseSignature})
		if err != nil {
			if k != nil {
				t.Errorf("refused with a key: %v", err)
			}
			return
		}
		if bytes.Contains(text, []byte("PRIVATE KEY")) || k.Algorithm() == "" || len(k.Fingerprint()) != len("sha256:")+64 {
			t.Errorf("accepted %q as %s %s", text, k.Algorithm(), k.Fingerprint())
		}
		k.verifies(newMessage([]byte("m")), []byte("not a signature"))
	})
}
