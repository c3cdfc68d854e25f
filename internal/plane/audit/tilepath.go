package audit

import (
	"strconv"
	"strings"

	"provost.dev/provost/internal/kernel"
)

// tileID names a tile or entry bundle by C2SP tlog-tiles paths, after "tile/".
type tileID struct {
	entries bool
	level   int
	index   int64
	width   int // 256 unless the path is of a partial one
}

// parseTilePath reads <L>/<N>[.p/<W>] or entries/<N>[.p/<W>], where N is in
// groups of three digits, all but the last marked with x: 1234067 is x001/x234/067.
func parseTilePath(p string) (id tileID, err error) {
	bad := &kernel.Error{Kind: kernel.NotFound, Msg: "that is not the path of a tile"}
	first, rest, ok := strings.Cut(p, "/")
	if !ok || len(p) > 64 {
		return id, bad
	}
	if first == "entries" {
		id.entries = true
	} else if id.level, err = strconv.Atoi(first); err != nil || id.level < 0 || id.level > 63 || strconv.Itoa(id.level) != first {
		return id, bad
	}
	id.width = 256
	if n, w, partial := strings.Cut(rest, ".p/"); partial {
		if id.width, err = strconv.Atoi(w); err != nil || id.width < 1 || id.width > 255 || strconv.Itoa(id.width) != w {
			return id, bad
		}
		rest = n
	}
	groups := strings.Split(rest, "/")
	for i, g := range groups {
		digits, marked := strings.CutPrefix(g, "x")
		if marked == (i == len(groups)-1) || len(digits) != 3 || strings.Trim(digits, "0123456789") != "" || i == 0 && marked && digits == "000" {
			return id, bad
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || id.index > 1<<36 {
			return id, bad
		}
		id.index = id.index*1000 + n
	}
	return id, nil
}
