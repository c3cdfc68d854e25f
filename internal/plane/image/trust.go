package image

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"provost.dev/provost/internal/fabric/supplychain"
	"provost.dev/provost/internal/kernel"
	"provost.dev/provost/internal/kernel/govern"
	"provost.dev/provost/internal/kernel/jobs"
	"provost.dev/provost/internal/kernel/policy"
	"provost.dev/provost/internal/kernel/route"
	"provost.dev/provost/internal/kernel/store"
)

// TrustKey is a public key and what the tenant trusts it for.
type TrustKey struct {
	Name        string            `json:"name"`
	PublicKey   string            `json:"public_key"`
	Uses        []supplychain.Use `json:"uses"`
	Algorithm   string            `json:"algorithm"`
	Fingerprint string            `json:"fingerprint"`
	CreatedBy   string            `json:"created_by"`
	CreatedAt   time.Time         `json:"created_at"`
}

func (s *Service) postTrustKey(c *route.Call) (any, error) {
	var in struct {
		Name      string            `json:"name"`
		PublicKey string            `json:"public_key"`
		Uses      []supplychain.Use `json:"uses"`
	}
	if err := c.Into(&in); err != nil {
		return nil, err
	}
	parsed, err := supplychain.ParseTrustKey(in.Name, []byte(in.PublicKey), in.Uses)
	if err != nil {
		return nil, err
	}
	k := TrustKey{Name: parsed.Name(), PublicKey: in.PublicKey, Uses: parsed.Uses(), Algorithm: parsed.Algorithm(), Fingerprint: parsed.Fingerprint(), CreatedBy: c.Principal.ID()}
	tenant := c.Principal.Tenant
	a := s.trustAction(c, "trust-key.create", k.Name)
	uses := make([]string, len(k.Uses))
	list := make([]any, len(k.Uses))
	for i, u := range k.Uses {
		uses[i], list[i] = string(u), string(u)
	}
	a.Resource.Attributes["uses"], a.Resource.Attributes["algorithm"] = uses, k.Algorithm
	a.Details = map[string]any{"key_name": k.Name, "key_fingerprint": k.Fingerprint, "key_uses": list}
	receipt, err := s.gov.Do(c.R.Context(), a, func(tx *govern.Tx) error {
		k.CreatedAt = tx.Now
		text, err := json.Marshal(k.Uses)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO trust_keys (tenant, name, public_key, uses, algorithm, fingerprint, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			tenant, k.Name, k.PublicKey, string(text), k.Algorithm, k.Fingerprint, k.CreatedBy, store.Micros(k.CreatedAt))
		if errors.Is(err, store.ErrExists) {
			return &kernel.Error{Kind: kernel.Conflict, Code: "ECS_TRUST_KEY_EXISTS", Field: "name", Msg: "a trust key of this name exists; delete it first, or give another name"}
		}
		if err != nil {
			return fmt.Errorf("insert trust key: %w", err)
		}
		return reverifyAll(tx, tenant)
	})
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	c.Created("/v1/trust-keys/" + k.Name)
	return k, nil
}

func (s *Service) trustAction(c *route.Call, verb, name string) govern.Action {
	a := c.Action(verb)
	a.Resource = policy.Resource{Type: "TrustKey", ID: name, Attributes: policy.Record{"tenant": c.Principal.Tenant}}
	a.ResourceID = "trust-key/" + name
	return a
}

// reverifyAll marks every verdict of the tenant as out of date and has them made again.
func reverifyAll(tx *govern.Tx, tenant string) error {
	if _, err := tx.Exec(`UPDATE image_reports SET generation = generation + 1 WHERE tenant = $1`, tenant); err != nil {
		return fmt.Errorf("mark image reports stale: %w", err)
	}
	images, err := store.All(tx, func(r *sql.Rows) (v verifyArgs, err error) { return v, r.Scan(&v.Repository, &v.Digest) },
		`SELECT repository, digest FROM image_reports WHERE tenant = $1`, tenant)
	if err != nil {
		return err
	}
	for _, v := range images {
		if err := enqueueVerify(tx, v); err != nil {
			return err
		}
	}
	return nil
}

func enqueueVerify(tx *govern.Tx, v verifyArgs) error {
	args, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// No key: what arrives while a verification runs must be seen by another one.
	return tx.Enqueue(jobs.Job{Kind: verifyJob, Args: args})
}

func (s *Service) listTrustKeys(c *route.Call) (any, error) {
	if err := c.OnlyQuery("limit", "cursor"); err != nil {
		return nil, err
	}
	limit, err := c.PageLimit()
	if err != nil {
		return nil, err
	}
	after, err := c.Cursor()
	if err != nil {
		return nil, err
	}
	if err := s.gov.Check(c.R.Context(), s.trustAction(c, "trust-key.read", "")); err != nil {
		return nil, err
	}
	keys, err := s.trustKeys(c.R.Context(), c.Principal.Tenant, after, limit+1)
	p := route.Page[TrustKey]{Items: []TrustKey{}}
	if len(keys) > limit {
		keys = keys[:limit]
		p.NextCursor = route.Cursor(keys[limit-1].Name)
	}
	p.Items = append(p.Items, keys...)
	return p, err
}

func (s *Service) getTrustKey(c *route.Call) (any, error) {
	name := c.Path("name")
	if err := s.gov.Check(c.R.Context(), s.trustAction(c, "trust-key.read", name)); err != nil {
		return nil, err
	}
	var k []TrustKey
	err := s.db.View(c.R.Context(), c.Principal.Tenant, func(q store.Q) (err error) {
		k, err = store.All(q, scanTrustKey, `SELECT `+trustColumns+` FROM trust_keys WHERE tenant = $1 AND name = $2`, c.Principal.Tenant, name)
		return err
	})
	if err == nil && len(k) == 0 {
		return nil, unknownKey(name)
	}
	if err != nil {
		return nil, err
	}
	return k[0], nil
}

func unknownKey(name string) error {
	return &kernel.Error{Kind: kernel.NotFound, Code: "ECS_TRUST_KEY_NOT_FOUND", Msg: fmt.Sprintf("no trust key %q", name)}
}

func (s *Service) deleteTrustKey(c *route.Call) (any, error) {
	name, tenant := c.Path("name"), c.Principal.Tenant
	receipt, err := s.gov.Do(c.R.Context(), s.trustAction(c, "trust-key.delete", name), func(tx *govern.Tx) error {
		n, err := tx.Exec(`DELETE FROM trust_keys WHERE tenant = $1 AND name = $2`, tenant, name)
		if err != nil {
			return fmt.Errorf("delete trust key: %w", err)
		}
		if n == 0 {
			return unknownKey(name)
		}
		return reverifyAll(tx, tenant)
	})
	if err != nil {
		return nil, err
	}
	c.Receipt(receipt)
	return nil, nil
}

const trustColumns = `name, public_key, uses, algorithm, fingerprint, created_by, created_at`

func scanTrustKey(r *sql.Rows) (k TrustKey, err error) {
	var uses string
	var at int64
	if err := r.Scan(&k.Name, &k.PublicKey, &uses, &k.Algorithm, &k.Fingerprint, &k.CreatedBy, &at); err != nil {
		return k, err
	}
	k.CreatedAt = store.Time(at)
	return k, json.Unmarshal([]byte(uses), &k.Uses)
}

func (s *Service) trustKeys(ctx context.Context, tenant, after string, limit int) (keys []TrustKey, err error) {
	err = s.db.View(ctx, tenant, func(q store.Q) error {
		keys, err = store.All(q, scanTrustKey, `SELECT `+trustColumns+` FROM trust_keys WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3`, tenant, after, limit)
		return err
	})
	return keys, err
}

// trusted returns the tenant's keys as the verifier takes them.
func (s *Service) trusted(ctx context.Context, tenant string) ([]*supplychain.TrustKey, error) {
	keys, err := s.trustKeys(ctx, tenant, "", supplychain.MaxKeys)
	if err != nil {
		return nil, err
	}
	out := make([]*supplychain.TrustKey, len(keys))
	for i, k := range keys {
		if out[i], err = supplychain.ParseTrustKey(k.Name, []byte(k.PublicKey), k.Uses); err != nil {
			return nil, fmt.Errorf("trust key %s: %w", k.Name, err)
		}
	}
	return out, nil
}
