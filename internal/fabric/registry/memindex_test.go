package registry_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry"
	"provost.dev/provost/internal/fabric/registry/manifest"
	"provost.dev/provost/internal/kernel"
)

// user is a Caller of the tests: name@tenant.
type user struct {
	name, tenant string
	may          []registry.Action
}

func (u *user) Key() string { return u.name + "@" + u.tenant }

// The cast. Everybody's password is "pw".
var cast = map[string]*user{
	"alice":  {"alice", "demo", []registry.Action{registry.Pull, registry.Push, registry.Delete}},
	"reader": {"reader", "demo", []registry.Action{registry.Pull}},
	"bob":    {"bob", "rival", []registry.Action{registry.Pull, registry.Push, registry.Delete}},
}

// gate is the Authorizer of the tests.
type gate struct{}

func (gate) Authorize(r *http.Request, repo string, a registry.Action) (registry.Caller, error) {
	name, pw, ok := r.BasicAuth()
	u := cast[name]
	if !ok || u == nil || pw != "pw" {
		return nil, &kernel.Error{Kind: kernel.Unauthenticated, Msg: "sign in"}
	}
	if repo != "" && !strings.HasPrefix(repo, u.tenant+"/") {
		return nil, &kernel.Error{Kind: kernel.NotFound, Msg: "no such repository"}
	}
	if !slices.Contains(u.may, a) {
		return nil, &kernel.Error{Kind: kernel.Refused, Msg: "you may not " + string(a), Rule: "role." + string(a),
			Fix: "ask an operator for the developer role", EventID: "ev-1", Pointer: "sha256:refusal"}
	}
	return u, nil
}

// memIndex is an Index in memory. refuse, when set, is asked before every change.
type memIndex struct {
	mu      sync.Mutex
	repos   map[string]*repository
	events  int
	mounted int // blobs linked from another repository
	refuse  func(verb string) error
}

type repository struct {
	blobs     map[blob.Digest]int64
	manifests map[blob.Digest]registry.Pushed
	tags      map[string]blob.Digest
}

func newMemIndex() *memIndex { return &memIndex{repos: map[string]*repository{}} }

func notFound() error { return &kernel.Error{Kind: kernel.NotFound, Msg: "not found"} }

// change runs fn on a repository, created if need be, and counts an event.
func (x *memIndex) change(repo, verb string, fn func(*repository) error) (registry.Receipt, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.refuse != nil {
		if err := x.refuse(verb); err != nil {
			return registry.Receipt{}, err
		}
	}
	r := x.repos[repo]
	if r == nil {
		r = &repository{map[blob.Digest]int64{}, map[blob.Digest]registry.Pushed{}, map[string]blob.Digest{}}
	}
	if err := fn(r); err != nil {
		return registry.Receipt{}, err
	}
	x.repos[repo] = r
	x.events++
	return registry.Receipt{EventID: fmt.Sprintf("ev-%d", x.events), Pointer: "sha256:" + verb}, nil
}

// view runs fn on a repository that exists.
func (x *memIndex) view(repo string, fn func(*repository) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.repos[repo]; r != nil {
		return fn(r)
	}
	return notFound()
}

func (x *memIndex) Blob(_ context.Context, _ registry.Caller, repo string, d blob.Digest) (size int64, err error) {
	err = x.view(repo, func(r *repository) error {
		var ok bool
		if size, ok = r.blobs[d]; !ok {
			return notFound()
		}
		return nil
	})
	return size, err
}

func (x *memIndex) LinkBlob(_ context.Context, _ registry.Caller, repo string, l registry.Link) (registry.Receipt, error) {
	return x.change(repo, "link", func(r *repository) error {
		r.blobs[l.Digest] = l.Size
		if l.From != "" {
			x.mounted++
		}
		return nil
	})
}

func (x *memIndex) UnlinkBlob(_ context.Context, _ registry.Caller, repo string, d blob.Digest) (registry.Receipt, error) {
	return x.change(repo, "unlink", func(r *repository) error {
		if _, ok := r.blobs[d]; !ok {
			return notFound()
		}
		delete(r.blobs, d)
		return nil
	})
}

func (x *memIndex) GetManifest(_ context.Context, _ registry.Caller, repo string, ref registry.Reference) (m registry.Stored, err error) {
	err = x.view(repo, func(r *repository) error {
		d := ref.Digest
		if ref.Tag != "" {
			d = r.tags[ref.Tag]
		}
		p, ok := r.manifests[d]
		if !ok {
			return notFound()
		}
		m = p.Stored
		return nil
	})
	return m, err
}

func (x *memIndex) PutManifest(_ context.Context, _ registry.Caller, repo string, p registry.Pushed) (registry.Receipt, error) {
	return x.change(repo, "put", func(r *repository) error {
		r.manifests[p.Digest] = p
		for _, t := range p.Tags {
			r.tags[t] = p.Digest
		}
		return nil
	})
}

func (x *memIndex) DeleteManifest(_ context.Context, _ registry.Caller, repo string, ref registry.Reference) (registry.Receipt, error) {
	return x.change(repo, "delete", func(r *repository) error {
		if ref.Tag != "" {
			if _, ok := r.tags[ref.Tag]; !ok {
				return notFound()
			}
			delete(r.tags, ref.Tag)
			return nil
		}
		if _, ok := r.manifests[ref.Digest]; !ok {
			return notFound()
		}
		delete(r.manifests, ref.Digest)
		for t, d := range r.tags {
			if d == ref.Digest {
				delete(r.tags, t)
			}
		}
		return nil
	})
}

func (x *memIndex) Tags(_ context.Context, _ registry.Caller, repo, after string, limit int) (tags []string, err error) {
	err = x.view(repo, func(r *repository) error {
		for t := range r.tags {
			tags = append(tags, t)
		}
		tags = window(tags, after, limit)
		return nil
	})
	return tags, err
}

func (x *memIndex) Repositories(_ context.Context, c registry.Caller, after string, limit int) ([]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var names []string
	for n := range x.repos {
		if strings.HasPrefix(n, c.(*user).tenant+"/") {
			names = append(names, n)
		}
	}
	return window(names, after, limit), nil
}

func (x *memIndex) Referrers(_ context.Context, _ registry.Caller, repo string, d blob.Digest, kind, after string, limit int) ([]manifest.Descriptor, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.repos[repo]
	if r == nil {
		return nil, nil
	}
	found := map[string]manifest.Descriptor{}
	var keys []string
	for digest, p := range r.manifests {
		m := p.Manifest
		if m.Subject == nil || m.Subject.Digest != d || kind != "" && m.ReferrerType() != kind {
			continue
		}
		keys = append(keys, digest.String())
		found[digest.String()] = manifest.Descriptor{MediaType: m.MediaType, Digest: digest, Size: int64(len(p.Bytes)),
			ArtifactType: m.ReferrerType(), Annotations: m.Annotations}
	}
	var ds []manifest.Descriptor
	for _, k := range window(keys, after, limit) {
		ds = append(ds, found[k])
	}
	return ds, nil
}

// window sorts names and cuts out what comes after a name.
func window(names []string, after string, limit int) []string {
	slices.Sort(names)
	i, found := slices.BinarySearch(names, after)
	if found {
		i++
	}
	names = names[i:]
	return names[:min(limit, len(names))]
}
