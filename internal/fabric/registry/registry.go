// Package registry speaks the OCI Distribution protocol, version 1.1, over a blob
// store and an index. It owns the protocol and no state: bytes are kept by Blobs,
// and what a repository holds is known and changed by Index alone, so that every
// change can be decided and written down elsewhere.
//
//	POST  …/blobs/uploads/          an upload            ┐
//	PATCH …/blobs/uploads/<id>      bytes (resumable)    ├ Blobs
//	PUT   …/blobs/uploads/<id>?…    hashed and published ┘
//	                                linked to the repository: Index.LinkBlob
//	PUT   …/manifests/<reference>   parsed, what it names is looked up in the
//	                                repository (Index.Blob, Index.GetManifest),
//	                                stored: Index.PutManifest
//
// A blob is readable in a repository only when it is linked to it, however many
// others hold the same bytes. An upload belongs to the caller who began it and to
// the repository it was begun in.
//
// The specification leaves these open, and this is what is done: digests are
// sha256 or sha512; a repository exists once something is linked to it; manifests
// must not name content that is missing, save for non-distributable layers and for
// a subject; what a descriptor says of size and type must be so; tags can be given
// with a push by digest; conditional pushes are refused, not ignored.
package registry

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"provost.dev/provost/internal/fabric/blob"
	"provost.dev/provost/internal/fabric/registry/manifest"
)

// Action is what a request wants to do with a repository.
type Action string

// The actions.
const (
	Pull   Action = "pull"   // read; also asked for the base endpoint and the catalogue, with repo ""
	Push   Action = "push"   // add blobs, manifests and tags
	Delete Action = "delete" // remove them
)

// Caller is who makes a request, as the Authorizer found out. It is handed to
// Index unchanged, whose implementation knows what is in it.
type Caller interface {
	// Key is the same for all requests of one principal and for nobody else's.
	// Uploads and limits hang on it.
	Key() string
}

// Authorizer decides before anything else is looked at.
type Authorizer interface {
	// Authorize returns the caller of r, or a kernel.Error: Unauthenticated becomes
	// 401 with a Basic challenge, Refused 403, NotFound 404. A repository the caller
	// may not know of must get the same NotFound whether it exists or not.
	Authorize(r *http.Request, repo string, action Action) (Caller, error)
}

// Blobs keeps bytes; *blob.Store is one. The contracts are blob's.
type Blobs interface {
	Stat(ctx context.Context, d blob.Digest) (blob.Info, error)
	Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error)
	Put(ctx context.Context, d blob.Digest, size int64, r io.Reader) (int64, error)
	Touch(ctx context.Context, d blob.Digest) error
	Uploads
}

// Uploads keeps the unfinished uploads of Blobs.
type Uploads interface {
	Begin(ctx context.Context, owner, purpose string) (blob.Upload, error)
	Offset(ctx context.Context, u blob.Upload) (int64, error)
	Append(ctx context.Context, u blob.Upload, offset, size int64, r io.Reader) (int64, error)
	Commit(ctx context.Context, u blob.Upload, d blob.Digest) (int64, error)
	Cancel(ctx context.Context, u blob.Upload) error
}

// Index is what repositories hold. Every change of the registry's state goes
// through it. Its errors are kernel.Error and are shown as Handler says; an
// unknown repository is one that holds nothing, and NotFound where a list of it is asked for.
type Index interface {
	Links
	Manifests
	Lists
}

// Links says which blobs a repository has.
type Links interface {
	// Blob returns the size of d in repo, or NotFound when repo does not have it.
	Blob(ctx context.Context, c Caller, repo string, d blob.Digest) (int64, error)
	// LinkBlob records that repo has a blob whose bytes are in Blobs. Linking again is no error.
	LinkBlob(ctx context.Context, c Caller, repo string, l Link) (Receipt, error)
	// UnlinkBlob forgets it, or returns NotFound. It may refuse (Conflict) while a manifest of repo needs it.
	UnlinkBlob(ctx context.Context, c Caller, repo string, d blob.Digest) (Receipt, error)
}

// Manifests stores manifests and tags. Implementations must check again, in the
// transaction that stores a manifest, that the blobs and manifests it names are in
// the repository, if they can disappear meanwhile.
type Manifests interface {
	// GetManifest returns the manifest that ref names in repo, or NotFound.
	GetManifest(ctx context.Context, c Caller, repo string, ref Reference) (Stored, error)
	// PutManifest stores a manifest under its digest and points each tag to it.
	// Putting what is there already, under tags that point to it, is no error.
	PutManifest(ctx context.Context, c Caller, repo string, p Pushed) (Receipt, error)
	// DeleteManifest removes a tag, or a manifest by digest with all tags that point
	// to it, or returns NotFound.
	DeleteManifest(ctx context.Context, c Caller, repo string, ref Reference) (Receipt, error)
}

// Lists enumerates, in ascending byte order, what comes after a name (exclusive;
// "" is the beginning), at most limit of it. Limit is at least 1.
type Lists interface {
	// Tags returns NotFound when repo holds nothing.
	Tags(ctx context.Context, c Caller, repo, after string, limit int) ([]string, error)
	// Referrers are the manifests of repo whose subject is d, in the order of their
	// digests, each as a descriptor with artifactType (manifest.ReferrerType) and the
	// manifest's annotations; artifactType "" is all of them. None is no error.
	Referrers(ctx context.Context, c Caller, repo string, d blob.Digest, artifactType, after string, limit int) ([]manifest.Descriptor, error)
	// Repositories are those that c may see.
	Repositories(ctx context.Context, c Caller, after string, limit int) ([]string, error)
}

// Link is a blob that a repository gets.
type Link struct {
	Digest blob.Digest
	Size   int64  // bytes
	From   string // the repository it was mounted from, or ""
}

// Stored is a manifest as it is kept: byte for byte as it was pushed.
type Stored struct {
	Digest    blob.Digest
	MediaType string
	Bytes     []byte
}

// Pushed is a manifest that passed every check of this package.
type Pushed struct {
	Stored
	Tags     []string // may be empty: a push by digest
	Manifest *manifest.Manifest
}

// Receipt says where a change was written down. Both may be empty, for a change that was none.
type Receipt struct {
	EventID string
	Pointer string // evidence pointer
}

// Config is what a Handler needs.
type Config struct {
	Auth  Authorizer
	Blobs Blobs
	Index Index
	// Log gets internal errors. Default slog.Default().
	Log *slog.Logger
	// Realm is shown in the challenge. Default "provost".
	Realm string
	// MaxTransfers bounds the uploads of one caller that are under way at a time. Default 16.
	MaxTransfers int
	// IdleTimeout ends a transfer in which no byte moves. Default 1 minute.
	IdleTimeout time.Duration
	// MinRate, in bytes per second, sets the longest time a download may take beside
	// IdleTimeout. Default 16 KiB/s.
	MinRate int64
}

// Handler serves /v2/. Errors are the specification's {"errors":[{code, message,
// detail}]}; detail has what else a kernel.Error carries (rule_id, fix, event_id,
// evidence_pointer). Changes and recorded refusals answer with X-Event-ID and
// X-Evidence-Pointer.
type Handler struct {
	cfg       Config
	transfers *quota
}

// New returns a Handler. Auth, Blobs and Index must be set.
func New(cfg Config) *Handler {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Realm == "" {
		cfg.Realm = "provost"
	}
	if cfg.MaxTransfers == 0 {
		cfg.MaxTransfers = 16
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = time.Minute
	}
	if cfg.MinRate == 0 {
		cfg.MinRate = 16 << 10
	}
	return &Handler{cfg: cfg, transfers: newQuota(cfg.MaxTransfers)}
}

// call is one request on its way: what was asked for and by whom.
type call struct {
	*Handler
	w      http.ResponseWriter
	r      *http.Request
	route  route
	caller Caller
}

// operation is one method of one endpoint.
type operation struct {
	action Action
	serve  func(*call) error
	// unknown is the code of a NotFound that does not name its own.
	unknown string
}

var operations = map[endpoint]map[string]operation{
	baseEndpoint: {"GET": {Pull, (*call).base, CodeNameUnknown}},
	catalogue:    {"GET": {Pull, (*call).listRepositories, CodeNameUnknown}},
	tagList:      {"GET": {Pull, (*call).listTags, CodeNameUnknown}},
	referrerList: {"GET": {Pull, (*call).listReferrers, CodeNameUnknown}},
	manifestByRef: {
		"GET":    {Pull, (*call).getManifest, CodeManifestUnknown},
		"PUT":    {Push, (*call).putManifest, CodeNameUnknown},
		"DELETE": {Delete, (*call).deleteManifest, CodeManifestUnknown},
	},
	blobByDigest: {
		"GET":    {Pull, (*call).getBlob, blob.CodeUnknown},
		"DELETE": {Delete, (*call).deleteBlob, blob.CodeUnknown},
	},
	uploadStart: {"POST": {Push, (*call).startUpload, CodeNameUnknown}},
	uploadByID: {
		"GET":    {Push, (*call).uploadStatus, blob.CodeUploadUnknown},
		"PATCH":  {Push, (*call).patchUpload, blob.CodeUploadUnknown},
		"PUT":    {Push, (*call).finishUpload, blob.CodeUploadUnknown},
		"DELETE": {Push, (*call).cancelUpload, blob.CodeUploadUnknown},
	},
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	c := &call{Handler: h, w: w, r: r}
	err := c.boundBody()
	if err != nil {
		c.fail(err, CodeNameUnknown)
		return
	}
	if c.route, err = parsePath(r.URL.EscapedPath()); err != nil {
		c.fail(err, CodeNameUnknown)
		return
	}
	methods, ok := operations[c.route.endpoint]
	if !ok {
		c.fail(errNoEndpoint, CodeNameUnknown)
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // the server drops the body
	}
	op, ok := methods[method]
	if !ok {
		w.Header().Set("Allow", allowed(methods))
		c.fail(errNotAllowed, CodeUnsupported)
		return
	}
	if c.caller, err = h.cfg.Auth.Authorize(r, c.route.name, op.action); err == nil {
		err = op.serve(c)
	}
	if err != nil {
		c.fail(err, op.unknown)
	}
}

// base is the version check, and what docker login asks.
func (c *call) base() error {
	return c.writeJSON(http.StatusOK, "application/json", struct{}{})
}
