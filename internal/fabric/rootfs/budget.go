package rootfs

// budget counts what one image has used of the limits.
type budget struct {
	cfg      *Config
	unpacked int64 // bytes of all archives so far, holes of sparse files not counted
	written  int64 // bytes of file content, with holes
	files    int   // entries, and directories that entries imply
}

// checkBytes judges a layer whose archive, or whose file content, has come to n bytes
// from packed stored ones, and an image that has come to total.
func (b *budget) checkBytes(n, total, packed int64) error {
	if total > b.cfg.MaxBytes {
		return refuse(RuleLimit, "the image unpacks to more than %d bytes", b.cfg.MaxBytes)
	}
	if n > ratioGrace && n/b.cfg.MaxRatio > packed {
		return refuse(RuleBomb, "the layer unpacks to more than %d times its size", b.cfg.MaxRatio)
	}
	return nil
}

func (b *budget) addFile() error {
	if b.files++; b.files > b.cfg.MaxFiles {
		return refuse(RuleLimit, "the image has more than %d files", b.cfg.MaxFiles)
	}
	return nil
}
