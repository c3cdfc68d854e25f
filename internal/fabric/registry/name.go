package registry

import (
	"strings"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/kernel"
)

// maxName leaves clients that allow 255 characters for host and name together
// room for a host of 54 (distribution specification, "Pulling manifests").
const maxName = 200

// CheckName checks a repository name: path components of lower-case letters and
// digits, joined by ".", "_", "__" or dashes (distribution specification), at most 200
// characters. The error is Invalid with CodeNameInvalid.
func CheckName(s string) error {
	if len(s) > maxName {
		return kernel.Errorf(kernel.Invalid, CodeNameInvalid, "a repository name has at most %d characters", maxName)
	}
	for part := range strings.SplitSeq(s, "/") {
		if !validComponent(part) {
			return kernel.Errorf(kernel.Invalid, CodeNameInvalid,
				"a repository name is lower-case letters and digits, joined by one '.', one or two '_', or dashes, in parts separated by '/'")
		}
	}
	return nil
}

// validComponent matches [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func validComponent(s string) bool {
	sep := "" // the separator we are in
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			sep = ""
			continue
		case i == 0:
			return false
		case c == '-' && strings.Trim(sep, "-") == "", c == '_' && (sep == "" || sep == "_"), c == '.' && sep == "":
			sep += string(c)
		default:
			return false
		}
	}
	return s != "" && sep == ""
}

// CheckTag checks a tag: a word character, then up to 127 word characters, dots and
// dashes. The error is Invalid with CodeTagInvalid.
func CheckTag(s string) error {
	ok := s != "" && len(s) <= 128
	for i := range len(s) {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !word && (i == 0 || c != '.' && c != '-') {
			ok = false
			break
		}
	}
	if !ok {
		return kernel.Errorf(kernel.Invalid, CodeTagInvalid, "a tag is 1 to 128 letters, digits, '_', '.' and '-', and begins with neither '.' nor '-'")
	}
	return nil
}

// Reference names a manifest within a repository: by Tag or by Digest, never both.
type Reference struct {
	Tag    string
	Digest blob.Digest
}

// ParseReference tells a digest (it has a colon) from a tag. The error is Invalid.
func ParseReference(s string) (Reference, error) {
	if strings.Contains(s, ":") {
		d, err := blob.ParseDigest(s)
		return Reference{Digest: d}, err
	}
	if err := CheckTag(s); err != nil {
		return Reference{}, err
	}
	return Reference{Tag: s}, nil
}

// String is the tag or the digest.
func (r Reference) String() string {
	if r.Tag != "" {
		return r.Tag
	}
	return r.Digest.String()
}

// endpoint says which part of the API a path names.
type endpoint uint8

const (
	noEndpoint    endpoint = iota
	baseEndpoint           // /v2/
	catalogue              // /v2/_catalog
	tagList                // /v2/<name>/tags/list
	manifestByRef          // /v2/<name>/manifests/<reference>
	referrerList           // /v2/<name>/referrers/<digest>
	blobByDigest           // /v2/<name>/blobs/<digest>
	uploadStart            // /v2/<name>/blobs/uploads/
	uploadByID             // /v2/<name>/blobs/uploads/<id>
)

// route is a parsed path. arg is the last part where there is one, unchecked.
type route struct {
	endpoint endpoint
	name     string
	arg      string
}

// parsePath reads the path as it came over the wire. Nothing in a valid path needs
// an escape, so an escaped slash, dot or NUL cannot mean anything but mischief and
// is refused with every other escape; only the colon of a digest is often sent as
// %3A. Names may contain "blobs" or "tags" themselves, hence the reading from the end.
func parsePath(escaped string) (route, error) {
	path := strings.NewReplacer("%3A", ":", "%3a", ":").Replace(escaped)
	if strings.ContainsAny(path, "%\\\x00") || len(path) > 1024 {
		return route{}, kernel.Errorf(kernel.Invalid, CodeNameInvalid, "the path is too long or has an escape that no name needs")
	}
	switch path {
	case "/v2", "/v2/":
		return route{endpoint: baseEndpoint}, nil
	case "/v2/_catalog":
		return route{endpoint: catalogue}, nil
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, nil
	}
	r := split(rest)
	if r.endpoint == noEndpoint {
		return route{}, nil
	}
	return r, CheckName(r.name)
}

// split finds the endpoint in what follows /v2/.
func split(rest string) route {
	head, last := cutLast(rest)
	name, verb := cutLast(head)
	switch {
	case verb == "uploads":
		if repo, v := cutLast(name); v == "blobs" && last == "" {
			return route{uploadStart, repo, ""}
		} else if v == "blobs" {
			return route{uploadByID, repo, last}
		}
	case verb == "blobs" && last == "uploads":
		return route{uploadStart, name, ""}
	case verb == "blobs":
		return route{blobByDigest, name, last}
	case verb == "tags" && last == "list":
		return route{tagList, name, ""}
	case verb == "manifests":
		return route{manifestByRef, name, last}
	case verb == "referrers":
		return route{referrerList, name, last}
	}
	return route{}
}

// cutLast splits "a/b/c" into "a/b" and "c".
func cutLast(s string) (head, last string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}
