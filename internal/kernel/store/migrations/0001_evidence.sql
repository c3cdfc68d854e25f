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
-- that can be asked for.
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
    decision   BYTEA    NOT NULL  -- what policy was asked and said; with the event it gives the evidence artifact
);
CREATE UNIQUE INDEX events_id ON events (id);

-- The index of a segment of 4,096 events (pos >> 12), written when it is full:
-- for each k_ column the keys in order, each with its event's place in the
-- segment. Five B-trees of random keys would cost the writer more than the
-- events do; a reader looks into one row per segment, and at the newest
-- events themselves.
CREATE TABLE event_keys (
    segment BIGINT   NOT NULL,
    kind    SMALLINT NOT NULL,
    keys    BYTEA    NOT NULL, -- 10 bytes each: key, place
    PRIMARY KEY (segment, kind)
);

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
