package bundle

import (
	"fmt"
	"strconv"
	"strings"
)

// fileList is what SHA256SUMS.note signs: which export this is, and which
// SHA256SUMS belongs to it.
type fileList struct {
	exportID   string
	bundleHash string // manifest's, sha256:<hex>
	files      int    // lines of SHA256SUMS
	sums       digest // of SHA256SUMS
}

// listContext is the first line of the signed text. It keeps the signature from
// meaning anything elsewhere: a checkpoint's first line is its log's origin.
const listContext = "provost.dev/evidence-bundle/v1"

func (l fileList) text() string {
	return fmt.Sprintf("%s\n%s\n%s\n%d\n%s\n", listContext, l.exportID, l.bundleHash, l.files, l.sums)
}

// parseFileList reads text again. There is one text for each list.
func parseFileList(text string) (l fileList, ok bool) {
	lines := strings.Split(text, "\n")
	if len(lines) != 6 || lines[0] != listContext || lines[5] != "" {
		return l, false
	}
	l.exportID, l.bundleHash = lines[1], lines[2]
	n, err := strconv.ParseUint(lines[3], 10, 31)
	if err != nil {
		return l, false
	}
	l.files = int(n)
	if l.sums, ok = parseHash(lines[4]); !ok {
		return l, false
	}
	return l, l.text() == text
}

// appendSum appends a line of SHA256SUMS, as sha256sum(1) writes and checks it.
func appendSum(b []byte, sum digest, name string) []byte {
	const digits = "0123456789abcdef"
	for _, c := range sum {
		b = append(b, digits[c>>4], digits[c&15])
	}
	b = append(b, "  "...)
	return append(append(b, name...), '\n')
}

// parseSum reads such a line without its newline.
func parseSum(line []byte) (sum digest, name []byte, ok bool) {
	const n = 2 * len(sum)
	if len(line) < n+3 || string(line[n:n+2]) != "  " {
		return sum, nil, false
	}
	sum, ok = parseHex(line[:n])
	return sum, line[n+2:], ok
}
