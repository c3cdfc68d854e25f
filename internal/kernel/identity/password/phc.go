package password

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// params are argon2id's cost: memory in KiB, passes over it, lanes side by side.
type params struct {
	memory, passes uint32
	lanes          uint8
}

// hash is a parsed PHC string:
//
//	$argon2id$v=19$m=19456,t=2,p=1$<salt>$<key>
//
// with salt and key in base64 without padding (the PHC string format).
type hash struct {
	params    params
	salt, key []byte
}

func (h hash) String() string {
	e := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.params.memory, h.params.passes, h.params.lanes,
		e.EncodeToString(h.salt), e.EncodeToString(h.key))
}

// Bounds of what is read: hashes can be put into the database by hand, and one
// with a monstrous cost would stop every sign-in behind it.
const (
	maxMemory = 256 << 10 // KiB
	maxPasses = 16
	maxLanes  = 8
	maxBytes  = 64
	minBytes  = 8
)

var errFormat = errors.New("not an argon2id hash in the PHC string format within its limits")

// parse reads a PHC string.
func parse(s string) (h hash, err error) {
	part := strings.Split(s, "$")
	if len(s) > 512 || len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v="+strconv.Itoa(argon2.Version) {
		return hash{}, errFormat
	}
	cost := strings.Split(part[3], ",")
	if len(cost) != 3 {
		return hash{}, errFormat
	}
	var n [3]uint64
	for i, limit := range [3]struct {
		name string
		max  uint64
	}{{"m=", maxMemory}, {"t=", maxPasses}, {"p=", maxLanes}} {
		digits, ok := strings.CutPrefix(cost[i], limit.name)
		if n[i], err = strconv.ParseUint(digits, 10, 32); !ok || err != nil || n[i] == 0 || n[i] > limit.max {
			return hash{}, errFormat
		}
	}
	h.params = params{memory: uint32(n[0]), passes: uint32(n[1]), lanes: uint8(n[2])}
	for i, dst := range []*[]byte{&h.salt, &h.key} {
		if *dst, err = base64.RawStdEncoding.Strict().DecodeString(part[4+i]); err != nil || len(*dst) < minBytes || len(*dst) > maxBytes {
			return hash{}, errFormat
		}
	}
	return h, nil
}
