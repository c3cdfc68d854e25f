-- What repositories hold. Names are <tenant>/<path>; bytes of blobs are in the blob store.
CREATE TABLE image_blobs (
    tenant     TEXT   NOT NULL,
    repository TEXT   NOT NULL,
    digest     TEXT   NOT NULL,
    size       BIGINT NOT NULL,
    PRIMARY KEY (tenant, repository, digest)
);
CREATE INDEX image_blobs_digest ON image_blobs (digest);

CREATE TABLE image_manifests (
    tenant        TEXT   NOT NULL,
    repository    TEXT   NOT NULL,
    digest        TEXT   NOT NULL,
    media_type    TEXT   NOT NULL,
    artifact_type TEXT   NOT NULL, -- as the referrers list shows it
    subject       TEXT   NOT NULL, -- digest this manifest refers to, '' for none
    annotations   TEXT   NOT NULL, -- JSON object
    needs         TEXT   NOT NULL, -- JSON array: digests of the blobs and manifests it names
    bytes         BYTEA  NOT NULL,
    image_size    BIGINT NOT NULL, -- of everything it names
    pushed_at     BIGINT NOT NULL,
    pushed_by     TEXT   NOT NULL,
    PRIMARY KEY (tenant, repository, digest)
);
CREATE INDEX image_manifests_subject ON image_manifests (tenant, repository, subject);
CREATE INDEX image_manifests_digest ON image_manifests (tenant, digest);

CREATE TABLE image_tags (
    tenant     TEXT   NOT NULL,
    repository TEXT   NOT NULL,
    tag        TEXT   NOT NULL,
    digest     TEXT   NOT NULL,
    PRIMARY KEY (tenant, repository, tag)
);

CREATE TABLE trust_keys (
    tenant      TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    public_key  TEXT   NOT NULL, -- PEM
    uses        TEXT   NOT NULL, -- JSON array
    algorithm   TEXT   NOT NULL,
    fingerprint TEXT   NOT NULL,
    created_by  TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- The newest verification of what an image carries. Stale ones are made again:
-- something was attached, removed, or a trust key came or went.
CREATE TABLE image_reports (
    tenant     TEXT     NOT NULL,
    repository TEXT     NOT NULL,
    digest     TEXT     NOT NULL,
    report     TEXT     NOT NULL, -- canonical JSON of supplychain.Report
    artifact   TEXT     NOT NULL, -- its digest as an artifact of the tenant
    proofs     TEXT     NOT NULL, -- JSON array: digests of the artifacts it rests on
    generation BIGINT   NOT NULL, -- counts what made it stale
    made_for   BIGINT   NOT NULL, -- the generation that the report is of; stale when they differ
    made_at    BIGINT   NOT NULL,
    PRIMARY KEY (tenant, repository, digest)
);
