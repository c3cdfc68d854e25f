package rootfs

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

const (
	whiteoutPrefix = ".wh."         // what follows is removed from the lower layers
	opaqueWhiteout = ".wh..wh..opq" // everything in its directory is
)

// extract applies every entry of an archive, as the OCI image specification's
// layer.md says under "Applying Changesets".
func (t *tree) extract(r *tar.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return refuse(RuleCorrupt, "the archive cannot be read: %w", err)
		}
		if err := t.budget.addFile(); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // a comment, as git archive writes it
		}
		if err := t.entry(h, r, buf); err != nil {
			return err
		}
	}
}

func (t *tree) entry(h *tar.Header, content io.Reader, buf []byte) error {
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	dir, base := path.Dir(name), path.Base(name)
	if dir != "." && strings.Contains("/"+dir, "/"+whiteoutPrefix) {
		return refuse(RulePath, "%s is below a whiteout", clip(name))
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return t.whiteout(h, dir, base)
	}
	if at, err := t.directory(dir, true); err != nil {
		return err
	} else if name != "." {
		name = path.Join(at, base)
	}
	if len(name) > maxPath {
		return refuse(RuleLimit, "%s is too long", clip(name))
	}
	a, err := attributesOf(h)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return t.putDir(name, a)
	case tar.TypeReg, tar.TypeGNUSparse:
		return t.putFile(name, a, content, buf)
	case tar.TypeSymlink:
		return t.putSymlink(name, a, h.Linkname)
	case tar.TypeLink:
		return t.putLink(name, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return refuse(RuleSpecial, "%s is a device node or FIFO", clip(name))
	}
	return refuse(RuleSpecial, "%s is an entry of type %q", clip(name), h.Typeflag)
}

// whiteout hides what lower layers have, whatever comes before or after it in this one.
func (t *tree) whiteout(h *tar.Header, dir, base string) error {
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if h.Typeflag != tar.TypeReg || hidden == "" || hidden == "." || hidden == ".." {
		return refuse(RulePath, "%s is no whiteout as it should be", clip(h.Name))
	}
	at, err := t.directory(dir, false)
	if err != nil || at == "" {
		return err // nothing is there to be hidden
	}
	mark := path.Join(at, base)
	if t.hidden[mark] { // hiding costs a walk, which is not to be had again and again
		return refuse(RuleDuplicate, "%s is there twice", clip(h.Name))
	}
	t.hidden[mark] = true
	if base == opaqueWhiteout {
		return t.removeLowerIn(at)
	}
	return t.removeLower(path.Join(at, hidden))
}

// claim makes room for an entry of this layer: what a lower one has there goes, what
// this one has there is a second entry for one path.
func (t *tree) claim(p string) error {
	if p == "." {
		return refuse(RulePath, "the root must be a directory")
	}
	if _, ok := t.own[p]; ok {
		return refuse(RuleDuplicate, "%s is there twice", clip(p))
	}
	if err := t.remove(p); err != nil {
		return err
	}
	t.mark(p)
	return nil
}

// putDir makes a directory, or gives one that is there new attributes. The same
// directory twice is harmless and common.
func (t *tree) putDir(p string, a attributes) error {
	fi, err := t.root.Lstat(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError("look at directory", err)
	}
	if err == nil && fi.IsDir() {
		t.mark(p)
		t.dirs[p] = a
		return nil
	}
	if err := t.claim(p); err != nil {
		return err
	}
	return t.makeDir(p, a)
}

// putFile writes a new file: never into one that is there, which could be another's hard link.
func (t *tree) putFile(p string, a attributes, content io.Reader, buf []byte) error {
	if err := t.claim(p); err != nil {
		return err
	}
	f, err := t.root.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return diskError("make file", err)
	}
	err = t.fill(f, content, buf)
	if err == nil {
		err = t.setFile(f, a)
	}
	if cerr := f.Close(); cerr != nil && err == nil {
		err = diskError("close file", cerr)
	}
	if err != nil {
		return err
	}
	if err := t.root.Chtimes(p, a.mtime, a.mtime); err != nil {
		return diskError("set time of file", err)
	}
	return nil
}

func (t *tree) fill(f *os.File, content io.Reader, buf []byte) error {
	for {
		n, err := content.Read(buf)
		t.filled += int64(n)
		t.budget.written += int64(n)
		if err := t.budget.checkBytes(t.filled, t.budget.written, *t.packed); err != nil {
			return err
		}
		if _, err := f.Write(buf[:n]); err != nil {
			return diskError("write file", err)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return refuse(RuleCorrupt, "the archive cannot be read: %w", err)
		}
	}
}

func (t *tree) setFile(f *os.File, a attributes) error {
	if t.chown {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return diskError("set owner of file", err)
		}
	} else {
		a.mode |= 0o600
	}
	if err := f.Chmod(a.mode); err != nil {
		return diskError("set mode of file", err)
	}
	return nil
}

// putSymlink makes a symbolic link. It may point anywhere: it is followed inside the
// container, or by directory, and both stay in the tree.
func (t *tree) putSymlink(p string, a attributes, target string) error {
	if target == "" || len(target) > maxPath || strings.ContainsRune(target, 0) {
		return refuse(RuleLink, "%s points to no possible path", clip(p))
	}
	if err := t.claim(p); err != nil {
		return err
	}
	clear(t.resolved)
	if err := t.root.Symlink(target, p); err != nil {
		return diskError("make symbolic link", err)
	}
	if !t.chown {
		return nil
	}
	if err := t.root.Lchown(p, a.uid, a.gid); err != nil {
		return diskError("set owner of symbolic link", err)
	}
	return nil
}

// putLink makes a hard link to a file of the tree. The target's last part is not
// followed: a link to a symbolic link is one more name for that link.
func (t *tree) putLink(p, target string) error {
	to, err := clean(target)
	if err != nil {
		return err
	}
	dir, err := t.directory(path.Dir(to), false)
	if err != nil {
		return err
	}
	to = path.Join(dir, path.Base(to))
	fi, err := t.root.Lstat(to)
	if dir == "" || errors.Is(err, fs.ErrNotExist) || to == p {
		return refuse(RuleLink, "%s links to %s, which is not there", clip(p), clip(target))
	}
	if err != nil {
		return diskError("look at link target", err)
	}
	if !fi.Mode().IsRegular() && fi.Mode().Type() != fs.ModeSymlink {
		return refuse(RuleLink, "%s links to %s, which is no file", clip(p), clip(target))
	}
	if err := t.claim(p); err != nil {
		return err
	}
	err = t.root.Link(to, p)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it was below what the link replaces
		return refuse(RuleLink, "%s links to %s, which it replaces", clip(p), clip(target))
	case errors.Is(err, syscall.EMLINK):
		return refuse(RuleLimit, "%s is one hard link too many to %s", clip(p), clip(target))
	case err != nil:
		return diskError("make hard link", err)
	}
	return nil
}
