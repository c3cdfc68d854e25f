package canon

import (
	"encoding/binary"
	"math/bits"
)

// Classes of bytes inside a canonical string.
const (
	plain   = iota // stands for itself
	quote          // ends the string
	escape         // begins an escape
	illegal        // never occurs unescaped
)

// class sorts bytes for the scanning loops, one load a byte.
var class = func() (t [256]uint8) {
	for i := range t {
		if i < 0x20 || i > 0x7e {
			t[i] = illegal
		}
	}
	t['"'] = quote
	t['\\'] = escape
	return t
}()

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// plainPrefix returns how many bytes at the start of s are plain, eight at a
// time: nearly all of an event is hex digits and words inside strings.
func plainPrefix(s []byte) int {
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(s[n:])
		// The usual carry tricks set the high bit of each byte that is below
		// 0x20, zero after the XOR, or itself above 0x7f. A borrow can only
		// disturb bytes above one that is rightly marked, and the lowest counts.
		q, b, d := x^'"'*ones, x^'\\'*ones, x^0x7f*ones
		marked := ((x-0x20*ones)&^x | (q-ones)&^q | (b-ones)&^b | (d-ones)&^d | x) & highs
		if marked != 0 {
			return n + bits.TrailingZeros64(marked)/8
		}
	}
	for n < len(s) && class[s[n]] == plain {
		n++
	}
	return n
}

// shortEscape maps control characters to the letter of their short escape.
var shortEscape = [0x20]byte{'\b': 'b', '\t': 't', '\n': 'n', '\f': 'f', '\r': 'r'}

// unhex is the value of a lower- or upper-case hex digit, or -1.
func unhex(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// unit reads the four hex digits of a \uXXXX escape at s, or returns -1.
func unit(s []byte) rune {
	if len(s) < 4 {
		return -1
	}
	var u rune
	for _, c := range s[:4] {
		d := unhex(c)
		if d < 0 {
			return -1
		}
		u = u<<4 | d
	}
	return u
}
