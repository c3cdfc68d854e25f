// Package rootfs turns an image into a directory that an OCI runtime can use as
// root file system, once for all containers of that image.
//
//	DIR/images/<algorithm>/<hex>/rootfs/     the tree
//	DIR/images/<algorithm>/<hex>/image.json  its configuration; the file's age is the time since it was last asked for
//	DIR/tmp/<random>/                        one unpacking, or one removal, on its way
//
// An image is unpacked beside the others, verified to the last byte, flushed and
// renamed into place: what stands under a digest is whole. Everything is checked
// against the digest that was asked for, down to the diff_ids, so a Source need not be trusted.
//
// # What a layer may not do
//
// A layer is bytes from a stranger that are unpacked by root. Names are
// resolved within the tree, component by component, as they would be inside the
// container; os.Root stands behind that and refuses what would leave the tree even
// if that resolution were wrong. These are refused, each with its own rule (see
// Rule): "..", device nodes, FIFOs and other special files, a file given twice,
// links to what is not there, names or paths too long or too deep, too much of
// anything, compression beyond reason, and content that is not what its digest says.
// Extended attributes, and with them file capabilities, are not applied, and setuid and setgid bits are
// dropped: a container has no-new-privileges and could not use them.
//
// # Ownership
//
// The tree is meant to be mounted read-only for an unprivileged user id. When the
// server runs as root, files belong to whom the layer says, so that modes mean in
// the container what their author meant: what is readable to others is readable to
// the container's user. When it does not, everything belongs to the server's own
// user, directories are at least rwx and files rw for it, and the runtime's user
// namespace decides who that is inside. The root directory is always readable and
// searchable by all. Mount points that a runtime needs (/dev, /proc, /sys, /tmp) are
// made if the image lacks them, so that nobody has to write to the shared tree later.
// DIR itself is private to the server's user.
package rootfs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

// Source has the content of images. It need not verify anything.
type Source interface {
	// Manifest returns a manifest or an index as it is stored, and its media type.
	Manifest(ctx context.Context, d blob.Digest) (mediaType string, b []byte, err error)
	// Blob returns the bytes of a configuration or a layer.
	Blob(ctx context.Context, d blob.Digest) (io.ReadCloser, error)
}

// Config says where images are unpacked and how large they may be.
type Config struct {
	// Dir is created if it is missing. It must be one file system.
	Dir string
	// MaxBytes bounds what one image unpacks to, in bytes. Default 8 GiB.
	MaxBytes int64
	// MaxFiles bounds its entries of all layers together. Default 400,000.
	MaxFiles int
	// MaxDepth bounds the directories above a file. Default 128.
	MaxDepth int
	// MaxLayers bounds its layers. Default 128.
	MaxLayers int
	// MaxRatio is how many times its compressed size a layer may unpack to, once that is over
	// 32 MiB. Default 200: text rarely passes 20, and deflate cannot pass 1032.
	MaxRatio int64
	// Timeout bounds one unpacking. Default 10 minutes.
	Timeout time.Duration
	// MaxConcurrent bounds the unpackings at a time; others wait. Default 2.
	MaxConcurrent int
	// Architecture is the one to run, in Go's words. Default the program's own.
	Architecture string
	// Now is the clock, for the age of images. Default time.Now.
	Now func() time.Time
}

// Image is an unpacked image. Its tree is shared: mount it read-only.
type Image struct {
	// Digest is that of the image manifest, even if an index was asked for.
	Digest blob.Digest `json:"digest"`
	// Rootfs is the absolute path of the tree.
	Rootfs string      `json:"-"`
	Config ImageConfig `json:"config"`
	Bytes  int64       `json:"bytes"` // of file content unpacked
	Files  int         `json:"files"` // entries unpacked
}

// Cache holds unpacked images. Its methods may be called concurrently.
type Cache struct {
	cfg   Config
	slots chan struct{}
	mu    sync.Mutex
	// flights are the unpackings under way, guarded by mu.
	flights map[blob.Digest]*flight
	// life is held for reading while an image is looked up and renewed, for writing while Collect moves one away.
	life sync.RWMutex
}

// New opens the cache in cfg.Dir and removes what a crash left half unpacked.
func New(cfg Config) (*Cache, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, kernel.Errorf(kernel.Internal, "", "locate image cache: %w", err)
	}
	cfg.Dir = dir
	setDefault(&cfg.MaxBytes, 8<<30)
	setDefault(&cfg.MaxFiles, 400_000)
	setDefault(&cfg.MaxDepth, 128)
	setDefault(&cfg.MaxLayers, 128)
	setDefault(&cfg.MaxRatio, 200)
	setDefault(&cfg.Timeout, 10*time.Minute)
	setDefault(&cfg.MaxConcurrent, 2)
	setDefault(&cfg.Architecture, runtime.GOARCH)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Cache{cfg: cfg, slots: make(chan struct{}, cfg.MaxConcurrent), flights: map[blob.Digest]*flight{}}
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return nil, diskError("create image cache", err)
	}
	for _, sub := range []string{c.tmp(), c.images(blob.SHA256), c.images(blob.SHA512)} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return nil, diskError("create image cache", err)
		}
	}
	return c, c.sweep()
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func (c *Cache) tmp() string                    { return filepath.Join(c.cfg.Dir, "tmp") }
func (c *Cache) images(a blob.Algorithm) string { return filepath.Join(c.cfg.Dir, "images", string(a)) }
func (c *Cache) path(d blob.Digest) string      { return filepath.Join(c.images(d.Algorithm()), d.Hex()) }

// Get returns the image d, or for an index the image in it for this machine,
// unpacking it first if need be. Callers that ask for the same image meanwhile wait
// for the same unpacking, which ends early only when all of them have gone.
//
// The cache does not ask who may see what: an image that one tenant has unpacked is
// there for the next who names its digest. Authorize before.
//
// Errors are kernel.Error: Unprocessable with a Rule for a fault of the image,
// Unavailable when the disk is full, and whatever src returns.
func (c *Cache) Get(ctx context.Context, src Source, d blob.Digest) (*Image, error) {
	if d.IsZero() {
		return nil, kernel.Errorf(kernel.Invalid, blob.CodeDigestInvalid, "no image digest given")
	}
	if img, err := c.lookUp(d); img != nil || err != nil {
		return img, err
	}
	digest, m, err := Resolve(ctx, src, d, c.cfg.Architecture)
	if err != nil {
		return nil, err
	}
	if digest != d {
		if img, err := c.lookUp(digest); img != nil || err != nil {
			return img, err
		}
	}
	return c.fly(ctx, digest, func(ctx context.Context) (*Image, error) {
		return c.unpack(ctx, src, digest, m)
	})
}

// lookUp returns the image d, renewed, or nil when it is not there.
func (c *Cache) lookUp(d blob.Digest) (*Image, error) {
	c.life.RLock()
	defer c.life.RUnlock()
	path := filepath.Join(c.path(d), metadataFile)
	now := c.cfg.Now()
	err := os.Chtimes(path, now, now)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diskError("renew cached image", err)
	}
	return c.readMetadata(d)
}

// flight is one unpacking that several callers wait for.
type flight struct {
	done    chan struct{} // closed when img and err are set
	img     *Image
	err     error
	waiters int // guarded by Cache.mu
	cancel  context.CancelFunc
}

// fly joins the unpacking of d or starts it.
func (c *Cache) fly(ctx context.Context, d blob.Digest, unpack func(context.Context) (*Image, error)) (*Image, error) {
	c.mu.Lock()
	f := c.flights[d]
	if f == nil {
		// The work belongs to all who wait, so it does not end with the first one's request.
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
		f = &flight{done: make(chan struct{}), cancel: cancel}
		c.flights[d] = f
		go func() {
			f.img, f.err = unpack(shared)
			c.mu.Lock()
			c.land(d, f)
			c.mu.Unlock()
			cancel()
			close(f.done)
		}()
	}
	f.waiters++
	c.mu.Unlock()

	select {
	case <-f.done:
		return f.img, f.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		c.land(d, f) // whoever comes now starts anew
	}
	return nil, kernel.Errorf(kernel.Unavailable, "", "the image was not unpacked in time: %w", ctx.Err())
}

// land takes f from the flights under way, if it is still there.
func (c *Cache) land(d blob.Digest, f *flight) {
	if c.flights[d] == f {
		delete(c.flights, d)
	}
}

// unpack makes the image m, whose digest is d, and publishes it.
func (c *Cache) unpack(ctx context.Context, src Source, d blob.Digest, m *manifest.Manifest) (*Image, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, kernel.Errorf(kernel.Unavailable, "", "waiting for other images to be unpacked: %w", ctx.Err())
	}
	config, diffIDs, err := c.loadConfig(ctx, src, m)
	if err != nil {
		return nil, err
	}
	w, err := c.newWorkspace()
	if err != nil {
		return nil, err
	}
	defer w.discard()
	img := &Image{Digest: d, Rootfs: filepath.Join(c.path(d), treeDir), Config: config}
	if err := c.fill(ctx, src, m, diffIDs, w, img); err != nil {
		return nil, err
	}
	if err := w.publish(c.path(d), img); err != nil {
		return nil, err
	}
	return img, nil
}

// fill applies the layers of m to w's tree.
func (c *Cache) fill(ctx context.Context, src Source, m *manifest.Manifest, diffIDs []blob.Digest, w *workspace, img *Image) error {
	root, err := os.OpenRoot(w.rootfs())
	if err != nil {
		return diskError("open root file system", err)
	}
	defer root.Close() // read only handle on a directory
	b := &budget{cfg: &c.cfg}
	t := newTree(root, b)
	for i, l := range m.Layers {
		if err := t.applyLayer(ctx, src, l, diffIDs[i]); err != nil {
			return inLayer(i, err)
		}
	}
	img.Bytes, img.Files = b.written, b.files
	return t.finish()
}
