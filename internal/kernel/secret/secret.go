// Package secret keeps private keys unreadable at rest: they are stored sealed
// under one master key that lives outside the database.
package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Box seals and opens small secrets with AES-256-GCM. Safe for concurrent use.
type Box struct{ aead cipher.AEAD }

// KeySize is the master key's length in bytes.
const KeySize = 32

// NewBox makes a box of a master key of KeySize bytes.
func NewBox(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("master key has %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead}, nil
}

// LoadBox reads the master key (base64 of KeySize bytes) from path, or makes
// one there, mode 0600, when the file does not exist.
func LoadBox(path string) (*Box, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createBox(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("master key %s: not base64", path)
	}
	return NewBox(key)
}

func createBox(path string) (*Box, error) {
	key := make([]byte, KeySize)
	rand.Read(key) //nolint:errcheck // crypto/rand.Read never fails
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create master key: %w", err)
	}
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("write master key: %w", err), os.Remove(path))
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil { // make the new name durable, too
		err = errors.Join(dir.Sync(), dir.Close())
		if err != nil {
			return nil, fmt.Errorf("sync master key's folder: %w", err)
		}
	}
	return NewBox(key)
}

// Seal encrypts plain for purpose. The same purpose must be given to Open, so
// that a sealed value moved to another column or tenant does not open.
func (b *Box) Seal(purpose string, plain []byte) []byte {
	nonce := make([]byte, b.aead.NonceSize(), b.aead.NonceSize()+len(plain)+b.aead.Overhead())
	rand.Read(nonce) //nolint:errcheck // crypto/rand.Read never fails
	return b.aead.Seal(nonce, nonce, plain, []byte(purpose))
}

// Open decrypts what Seal made for the same purpose.
func (b *Box) Open(purpose string, sealed []byte) ([]byte, error) {
	n := b.aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("sealed value is too short")
	}
	plain, err := b.aead.Open(nil, sealed[:n], sealed[n:], []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("open sealed %s: wrong master key or altered value", purpose)
	}
	return plain, nil
}
