package bus

import (
	"fmt"
	"strings"

	"provost.dev/provost/internal/kernel"
)

const (
	maxTokens  = 8    // of one Subject
	maxToken   = 256  // bytes of one token before encoding
	maxEncoded = 1024 // bytes of one encoded Subject; NATS reads control lines of 4 KiB
)

// Subject is the address of a message: a path of tokens from the general to the
// particular, such as {"events", tenant, "workload"}.
//
// A token is any string of 1 to 256 bytes, foreign ids included. On the wire
// tokens are joined by dots, and every byte outside A–Z a–z 0–9 - _ becomes
// "=XX" (upper-case hex). The encoding is one to one, so no id, whatever
// it holds, reaches another's subject or reads as one of NATS' wildcards
// ("*", ">") or system subjects ("$…").
type Subject []string

// String is the subject for people and logs; two different subjects may look alike.
func (s Subject) String() string { return strings.Join(s, ".") }

// encode returns the subject as NATS sees it, without the bus's prefix. Its error is Invalid.
func (s Subject) encode() (string, error) {
	if len(s) == 0 || len(s) > maxTokens {
		return "", kernel.InvalidField("subject", "has %d tokens: must be 1 to %d", len(s), maxTokens)
	}
	var b strings.Builder
	for i, token := range s {
		if token == "" || len(token) > maxToken {
			return "", kernel.InvalidField("subject", "token %d has %d bytes: must be 1 to %d", i, len(token), maxToken)
		}
		if i > 0 {
			b.WriteByte('.')
		}
		encodeToken(&b, token)
	}
	if b.Len() > maxEncoded {
		return "", kernel.InvalidField("subject", "takes %d bytes: at most %d", b.Len(), maxEncoded)
	}
	return b.String(), nil
}

func encodeToken(b *strings.Builder, token string) {
	const hex = "0123456789ABCDEF"
	for i := range len(token) {
		if c := token[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'=', hex[c>>4], hex[c&15]})
		}
	}
}

// plain reports whether c stands for itself in an encoded token.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// decodeSubject is the inverse of encode. It accepts only what encode produces.
func decodeSubject(name string) (Subject, error) {
	if len(name) > maxEncoded {
		return nil, fmt.Errorf("subject of %d bytes: at most %d", len(name), maxEncoded)
	}
	if n := strings.Count(name, ".") + 1; n > maxTokens {
		return nil, fmt.Errorf("subject of %d tokens: at most %d", n, maxTokens)
	}
	var s Subject
	for encoded := range strings.SplitSeq(name, ".") {
		token, err := decodeToken(encoded)
		if err != nil {
			return nil, fmt.Errorf("subject %q: %w", name, err)
		}
		s = append(s, token)
	}
	return s, nil
}

func decodeToken(encoded string) (string, error) {
	token := make([]byte, 0, len(encoded))
	for i := 0; i < len(encoded); i++ {
		c := encoded[i]
		if c == '=' {
			if len(encoded)-i < 3 {
				return "", fmt.Errorf("escape cut short in token %q", encoded)
			}
			hi, lo := unhex(encoded[i+1]), unhex(encoded[i+2])
			if hi < 0 || lo < 0 || plain(byte(hi<<4|lo)) {
				return "", fmt.Errorf("bad escape %q", encoded[i:i+3])
			}
			c = byte(hi<<4 | lo)
			i += 2
		} else if !plain(c) {
			return "", fmt.Errorf("bad byte %q", c)
		}
		token = append(token, c)
	}
	if len(token) == 0 || len(token) > maxToken {
		return "", fmt.Errorf("token of %d bytes: must be 1 to %d", len(token), maxToken)
	}
	return string(token), nil
}

// unhex is the value of an upper-case hex digit, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
