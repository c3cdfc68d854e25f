package supplychain

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"provost.dev/provost/internal/kernel"
)

// remoteRepository is a Content over the distribution protocol.
type remoteRepository struct{ repo name.Repository }

func (r remoteRepository) error(err error) error {
	if te, ok := errors.AsType[*transport.Error](err); ok && te.StatusCode == http.StatusNotFound {
		return errNotFound
	}
	return err
}

func (r remoteRepository) Manifest(ctx context.Context, d Digest) (string, []byte, error) {
	desc, err := remote.Get(r.repo.Digest(string(d)), remote.WithContext(ctx))
	if err != nil {
		return "", nil, r.error(err)
	}
	return string(desc.MediaType), desc.Manifest, nil
}

func (r remoteRepository) Blob(ctx context.Context, d Digest, max int64) ([]byte, error) {
	layer, err := remote.Layer(r.repo.Digest(string(d)), remote.WithContext(ctx))
	if err != nil {
		return nil, r.error(err)
	}
	body, err := layer.Compressed()
	if err != nil {
		return nil, r.error(err)
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, max+1))
	if int64(len(raw)) > max {
		return nil, kernel.Errorf(kernel.TooLarge, "", "blob is too large")
	}
	return raw, r.error(err)
}

// Referrers asks the API alone, without the client's own fallback to the tag.
func (r remoteRepository) Referrers(ctx context.Context, d Digest) ([]Descriptor, error) {
	url := "http://" + r.repo.RegistryStr() + "/v2/" + r.repo.RepositoryStr() + "/referrers/" + string(d)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, errNotFound
	}
	var index struct {
		Manifests []Descriptor `json:"manifests"`
	}
	return index.Manifests, json.NewDecoder(res.Body).Decode(&index)
}

func (r remoteRepository) Tag(ctx context.Context, tag string) (Digest, error) {
	desc, err := remote.Head(r.repo.Tag(tag), remote.WithContext(ctx))
	if err != nil {
		return "", r.error(err)
	}
	return Digest(desc.Digest.String()), nil
}
