package idp

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

// decodeClaims reads a token's payload without looking at its signature.
func decodeClaims(t *testing.T, bearer string, into any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(bearer, ".")[1])
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func stdBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
