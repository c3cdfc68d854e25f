package rootfs

import (
	"errors"
	"fmt"
	"syscall"

	"provost.dev/provost/internal/kernel"
)

// CodeUnusable is the code of every error that is the image's fault. Kind is Unprocessable, Rule says which fault.
const CodeUnusable = "IMAGE_UNUSABLE"

// The rules an image can break, in kernel.Error.Rule.
const (
	RuleManifest  = "image.manifest"           // not an image that can run, or not what its digest says
	RulePlatform  = "image.platform"           // nothing in it for this machine
	RuleConfig    = "image.config"             // its configuration cannot be used
	RuleMediaType = "image.layer.media_type"   // a layer in a format we do not read
	RuleDigest    = "image.layer.digest"       // a layer is not what its digest, size or diff_id says
	RuleCorrupt   = "image.layer.corrupt"      // a layer ends early or is no archive
	RulePath      = "image.layer.path"         // a name that leads out of the tree or cannot exist in it
	RuleLink      = "image.layer.link"         // a link without or to a wrong target
	RuleOwner     = "image.layer.owner"        // a user or group that cannot be
	RuleSpecial   = "image.layer.special_file" // a device node, FIFO or other special file
	RuleDuplicate = "image.layer.duplicate"    // a file given twice in one layer
	RuleBomb      = "image.layer.bomb"         // a compression ratio that only a bomb has
	RuleLimit     = "image.limit"              // more bytes, files, layers or depth than is allowed
)

// fixes say what would help, where that is not plain.
var fixes = map[string]string{
	RuleSpecial:   "build the layer without special files; the runtime provides /dev",
	RuleDuplicate: "build the layer with each path once, as the image specification asks",
	RuleBomb:      "split the layer, or store it with less compression",
	RuleLimit:     "make the image smaller, or ask the operator for a higher limit",
	RulePlatform:  "build the image for this platform",
}

func refuse(rule, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &kernel.Error{Kind: kernel.Unprocessable, Code: CodeUnusable, Rule: rule, Fix: fixes[rule], Msg: err.Error(), Err: errors.Unwrap(err)}
}

// inLayer adds to a refusal which layer it is about.
func inLayer(i int, err error) error {
	e, ok := errors.AsType[*kernel.Error](err)
	if !ok {
		return fmt.Errorf("unpack layer %d: %w", i, err)
	}
	out := *e
	out.Msg = fmt.Sprintf("layer %d: %s", i, e.Msg)
	return &out
}

// diskError is the one place where errors of the file system become ours.
func diskError(op string, err error) error {
	err = fmt.Errorf("%s: %w", op, err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &kernel.Error{Kind: kernel.Unavailable, Msg: "the disk is full; the image was not unpacked", Err: err}
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return &kernel.Error{Kind: kernel.Unavailable, Msg: "the image cache cannot be written", Err: err}
	}
	return err
}

// clip shortens a stranger's text for a message.
func clip(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return fmt.Sprintf("%q", s)
}
