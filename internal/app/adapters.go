package app

import (
	"context"
	"io"
	"strconv"
	"strings"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/rootfs"
	"provost.dev/provost/internal/fabric/runtime"
	"provost.dev/provost/internal/fabric/runtime/oci"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/plane/image"
	"provost.dev/provost/internal/plane/workload"
)

// images gives the workload plane what it needs of the image plane: facts for
// admission, and unpacked trees.
type images struct {
	plane *image.Service
	cache *rootfs.Cache
	// hosts are the names our own registry answers to.
	hosts map[string]bool
}

// Facts implements workload.Images.
func (i *images) Facts(ctx context.Context, tenant, ref string) (workload.Facts, error) {
	f := workload.Facts{Signature: "missing", Provenance: "missing", SBOM: "missing", Signers: []string{}, Builders: []string{}}
	host, rest := splitHost(ref)
	f.RegistryAllowed = host == "" || i.hosts[host]
	if !f.RegistryAllowed {
		f.Registry = host
		f.Pinned = strings.Contains(rest, "@")
		return f, nil
	}
	name, _, _ := strings.Cut(rest, "@")
	f.OwnTenant = strings.HasPrefix(name, tenant+"/")
	var err error
	f.Repository, f.Digest, f.Pinned, err = i.plane.Resolve(ctx, tenant, rest)
	if err != nil && kernel.KindOf(err) != kernel.NotFound {
		return f, err
	}
	if err != nil || !f.OwnTenant {
		return f, nil
	}
	v, err := i.plane.Verdict(ctx, tenant, f.Repository, f.Digest)
	if kernel.KindOf(err) == kernel.NotFound && err != nil {
		return f, nil // a signature or attestation, not an image
	}
	if err != nil {
		return f, err
	}
	f.Found = true
	f.Signature, f.Provenance, f.SBOM = string(v.Report.Signature.Status), string(v.Report.Provenance.Status), string(v.Report.SBOM.Status)
	for _, p := range v.Report.Signature.Proofs {
		for _, k := range p.Keys {
			f.Signers = append(f.Signers, k.Name)
		}
	}
	for _, p := range v.Report.Provenance.Proofs {
		if p.Build != nil {
			f.Builders = append(f.Builders, p.Build.BuilderID)
		}
	}
	f.Artifacts = v.Artifacts
	return f, nil
}

// splitHost takes a registry's name off an image reference: a first component
// with a dot or a port, or localhost, is one (as docker reads them).
func splitHost(ref string) (host, rest string) {
	first, after, ok := strings.Cut(ref, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first, after
	}
	return "", ref
}

// Rootfs implements workload.Images.
func (i *images) Rootfs(ctx context.Context, tenant, repository, digest string) (workload.Rootfs, error) {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return workload.Rootfs{}, err
	}
	img, err := i.cache.Get(ctx, layers{i.plane, tenant, repository}, d)
	if err != nil {
		return workload.Rootfs{}, err
	}
	uid, gid := user(img.Config.User)
	return workload.Rootfs{Dir: img.Rootfs, Entrypoint: img.Config.Entrypoint, Cmd: img.Config.Cmd, Env: img.Config.Env,
		WorkingDir: img.Config.WorkingDir, UID: uid, GID: gid, StopSignal: img.Config.StopSignal}, nil
}

// user reads a numeric user of an image. Names, root and nonsense give 0,
// which means the driver's unprivileged default: no image chooses to be root.
func user(s string) (uid, gid uint32) {
	u, g, _ := strings.Cut(s, ":")
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return 0
		}
		return uint32(n)
	}
	return number(u), number(g)
}

// layers is one repository as the unpacker reads it.
type layers struct {
	plane              *image.Service
	tenant, repository string
}

// Manifest implements rootfs.Source.
func (l layers) Manifest(ctx context.Context, d blob.Digest) (mediaType string, b []byte, err error) {
	return l.plane.Manifest(ctx, l.tenant, l.repository, d)
}

// Blob implements rootfs.Source.
func (l layers) Blob(ctx context.Context, d blob.Digest) (io.ReadCloser, error) {
	return l.plane.OpenBlob(ctx, l.tenant, l.repository, d)
}

// containers is the OCI driver as the workload plane sees it.
type containers struct{ *oci.Driver }

// Logs implements workload.Driver.
func (c containers) Logs(ctx context.Context, id string, opts runtime.LogOptions) (workload.LogReader, error) {
	return c.Driver.Logs(ctx, id, opts)
}
