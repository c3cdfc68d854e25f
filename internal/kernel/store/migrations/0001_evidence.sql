-- One log per tenant. size and last_hash are the chain's head; epoch counts the
-- changes to what decisions in this tenant rest on (status, authority, policy,
-- people), so that a decision made before such a change is made again.
CREATE TABLE log_heads (
    tenant     TEXT   NOT NULL PRIMARY KEY,
    log_no     BIGINT NOT NULL UNIQUE,
    size       BIGINT NOT NULL,
    last_hash  TEXT   NOT NULL,
    last_at    BIGINT NOT NULL,
    epoch      BIGINT NOT NULL,
    -- The log's Ed25519 key: the C2SP verifier key, and the signer key sealed under the master key.
    verifier   TEXT   NOT NULL,
    signer     BYTEA  NOT NULL
);

-- pos = log_no << 40 | sequence. The k_ columns are 64-bit hashes of the value
-- that can be asked for; a reader compares the event itself. Indexing them by
-- (pos >> 12, key) keeps inserts on the pages of the last 4,096 events.
CREATE TABLE events (
    pos        BIGINT PRIMARY KEY,
    tenant     TEXT     NOT NULL,
    id         BYTEA    NOT NULL,
    at         BIGINT   NOT NULL,
    outcome    SMALLINT NOT NULL,
    k_type     BIGINT   NOT NULL,
    k_actor    BIGINT   NOT NULL,
    k_resource BIGINT   NOT NULL,
    k_corr     BIGINT   NOT NULL,
    k_evidence BIGINT   NOT NULL,
    event      BYTEA    NOT NULL, -- canonical JSON with event_hash: the Merkle leaf
    evidence   BYTEA    NOT NULL  -- the evidence artifact's file bytes
);
CREATE UNIQUE INDEX events_id ON events (id);
CREATE INDEX events_type ON events ((pos >> 12), k_type);
CREATE INDEX events_actor ON events ((pos >> 12), k_actor);
CREATE INDEX events_resource ON events ((pos >> 12), k_resource);
CREATE INDEX events_corr ON events ((pos >> 12), k_corr);
CREATE INDEX events_evidence ON events ((pos >> 12), k_evidence);

-- Full tiles only (C2SP tlog-tiles, height 8): 256 hashes of 32 bytes.
CREATE TABLE tiles (
    log_no BIGINT   NOT NULL,
    level  SMALLINT NOT NULL,
    idx    BIGINT   NOT NULL,
    hashes BYTEA    NOT NULL,
    PRIMARY KEY (log_no, level, idx)
);

-- Content-addressed bytes that events refer to: policy and authority
-- snapshots, verification reports, signatures, SBOMs.
CREATE TABLE artifacts (
    tenant     TEXT   NOT NULL,
    digest     TEXT   NOT NULL, -- sha256:<hex>
    kind       TEXT   NOT NULL, -- the manifest's list it belongs to: policy_snapshots, sbom_refs, …
    media_type TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    bytes      BYTEA  NOT NULL,
    PRIMARY KEY (tenant, digest)
);
