package rootfs

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	maxPath    = 4095 // Linux PATH_MAX without its NUL
	maxName    = 255  // Linux NAME_MAX
	maxSymlink = 40   // symbolic links followed in one path, as the kernel does
)

// tree is a root file system that layers are applied to, one after the other, by
// one goroutine. Paths in it are clean, relative and slash-separated; "." is its root.
type tree struct {
	root   *os.Root
	budget *budget
	chown  bool
	// dirs is what directories will be in the end. It waits because a directory's time
	// changes with its entries and its mode might forbid them.
	dirs map[string]attributes
	// resolved remembers where directories really are. Whatever may move one empties it.
	resolved map[string]string

	// Of the layer being applied:
	own    map[string]bool // its entries (true) and the directories above them (false)
	hidden map[string]bool // its whiteouts
	packed *int64          // bytes read of its stored form
	filled int64           // bytes of file content
}

// attributes are what an archive says of a file besides its content.
type attributes struct {
	mode     os.FileMode // permissions and the sticky bit
	uid, gid int
	mtime    time.Time
}

func newTree(root *os.Root, b *budget) *tree {
	return &tree{root: root, budget: b, chown: os.Geteuid() == 0,
		dirs: map[string]attributes{".": implied()}, resolved: map[string]string{}}
}

// implied is what a directory is that no layer describes.
func implied() attributes { return attributes{mode: 0o755, mtime: time.Unix(0, 0)} }

func (t *tree) beginLayer(packed *int64) {
	t.own, t.hidden, t.packed, t.filled = map[string]bool{}, map[string]bool{}, packed, 0
}

// attributesOf reads them from a header. Setuid and setgid are dropped.
func attributesOf(h *tar.Header) (attributes, error) {
	const maxID = 1<<32 - 2 // the last one is (uid_t)-1, which means: leave it
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return attributes{}, refuse(RuleOwner, "%s belongs to user %d and group %d", clip(h.Name), h.Uid, h.Gid)
	}
	mode := os.FileMode(h.Mode & 0o777)
	if h.Mode&0o1000 != 0 {
		mode |= os.ModeSticky
	}
	mtime := h.ModTime
	if mtime.Before(time.Unix(0, 0)) || mtime.After(time.Unix(1<<33, 0)) { // what every file system can hold
		mtime = time.Unix(0, 0)
	}
	return attributes{mode: mode, uid: h.Uid, gid: h.Gid, mtime: mtime}, nil
}

// clean makes a path of the archive a path of the tree. Leading slashes and "." mean nothing in an archive; ".." is refused.
func clean(name string) (string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", refuse(RulePath, "%s is no possible path", clip(name))
	}
	parts := strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "." })
	for _, p := range parts {
		if p == ".." || len(p) > maxName {
			return "", refuse(RulePath, "%s has a part that is \"..\" or too long", clip(name))
		}
	}
	if len(parts) == 0 {
		return ".", nil
	}
	return strings.Join(parts, "/"), nil
}

// directory returns where the directory dir really is: symbolic links in it are
// followed as inside the container, where the tree's root is "/" and nothing is above
// it. What is missing is made if create says so, else "" is returned.
func (t *tree) directory(dir string, create bool) (string, error) {
	if at, ok := t.resolved[dir]; ok {
		return at, nil
	}
	at, links := ".", 0
	for todo := split(dir); len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		if part == ".." { // of a link's target; the archive's own have been refused
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		fi, err := t.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !create:
			return "", nil
		case errors.Is(err, fs.ErrNotExist):
			if err := t.budget.addFile(); err != nil {
				return "", err
			}
			if err := t.makeDir(next, implied()); err != nil {
				return "", err
			}
		case err != nil:
			return "", diskError("look at directory", err)
		case fi.Mode().Type() == fs.ModeSymlink:
			if links++; links > maxSymlink {
				return "", refuse(RuleLink, "%s goes through too many symbolic links", clip(dir))
			}
			target, err := t.root.Readlink(next)
			if err != nil {
				return "", diskError("read symbolic link", err)
			}
			if path.IsAbs(target) {
				at = "."
			}
			todo = append(split(target), todo...)
			continue
		case !fi.IsDir():
			return "", refuse(RulePath, "%s goes through a file that is no directory", clip(dir))
		}
		at = next
	}
	if strings.Count(at, "/") >= t.budget.cfg.MaxDepth {
		return "", refuse(RuleLimit, "%s is deeper than %d directories", clip(dir), t.budget.cfg.MaxDepth)
	}
	t.resolved[dir] = at
	return at, nil
}

// split returns the parts of a path that mean something.
func split(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return s == "" || s == "." })
}

// makeDir makes a directory where nothing is. Until the end it is ours alone.
func (t *tree) makeDir(p string, a attributes) error {
	if len(p) > maxPath || strings.Count(p, "/") > t.budget.cfg.MaxDepth {
		return refuse(RuleLimit, "%s is too long or too deep", clip(p))
	}
	if err := t.root.Mkdir(p, 0o700); err != nil {
		return diskError("make directory", err)
	}
	t.dirs[p] = a
	return nil
}

// mark records that the layer has p, and so the directories above it.
func (t *tree) mark(p string) {
	t.own[p] = true
	for p = path.Dir(p); p != "."; p = path.Dir(p) {
		if _, ok := t.own[p]; ok {
			return
		}
		t.own[p] = false
	}
}

// remove takes away p and everything below it, if it is there.
func (t *tree) remove(p string) error {
	fi, err := t.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return diskError("look at file", err)
	}
	if fi.IsDir() {
		names, err := t.names(p)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := t.remove(path.Join(p, n)); err != nil {
				return err
			}
		}
		delete(t.dirs, p)
	}
	if fi.IsDir() || fi.Mode().Type() == fs.ModeSymlink {
		clear(t.resolved)
	}
	if err := t.root.Remove(p); err != nil {
		return diskError("remove file", err)
	}
	return nil
}

// removeLower takes away what lower layers have at p and leaves what this one has.
func (t *tree) removeLower(p string) error {
	if _, ok := t.own[p]; !ok {
		return t.remove(p)
	}
	fi, err := t.root.Lstat(p)
	if err != nil {
		return diskError("look at file", err)
	}
	if !fi.IsDir() {
		return nil
	}
	return t.removeLowerIn(p)
}

func (t *tree) removeLowerIn(dir string) error {
	names, err := t.names(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := t.removeLower(path.Join(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// names lists a directory.
func (t *tree) names(dir string) ([]string, error) {
	f, err := t.root.Open(dir)
	if err != nil {
		return nil, diskError("open directory", err)
	}
	names, err := f.Readdirnames(-1) // bounded by the file limit
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, diskError("list directory", err)
	}
	return names, nil
}

// mountPoints are made where an image lacks them, so that a runtime finds them in a tree it must not write to.
var mountPoints = map[string]os.FileMode{"dev": 0o755, "proc": 0o755, "sys": 0o755, "tmp": 0o777 | os.ModeSticky}

// finish adds the mount points and gives every directory its attributes.
func (t *tree) finish() error {
	for p, mode := range mountPoints {
		_, err := t.root.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) {
			err = t.makeDir(p, attributes{mode: mode, mtime: time.Unix(0, 0)})
		}
		if err != nil {
			return err
		}
	}
	root := t.dirs["."]
	root.mode |= 0o555 // an archive of somebody's 0700 directory would lock everybody out
	t.dirs["."] = root
	for p, a := range t.dirs {
		if err := t.setDir(p, a); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) setDir(p string, a attributes) error {
	if t.chown {
		if err := t.root.Lchown(p, a.uid, a.gid); err != nil {
			return diskError("set owner of directory", err)
		}
	} else {
		a.mode |= 0o700
	}
	if err := t.root.Chmod(p, a.mode); err != nil {
		return diskError("set mode of directory", err)
	}
	if err := t.root.Chtimes(p, a.mtime, a.mtime); err != nil {
		return diskError("set time of directory", err)
	}
	return nil
}
