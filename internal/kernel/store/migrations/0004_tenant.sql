CREATE TABLE tenants (
    tenant            TEXT   NOT NULL PRIMARY KEY,
    authority_owner   TEXT   NOT NULL, -- whose authority is bound: the tenant's own, or the platform's
    authority_binding TEXT   NOT NULL,
    jurisdiction      TEXT   NOT NULL,
    ceiling           TEXT   NOT NULL,
    policy_owner      TEXT   NOT NULL,
    policy_baseline   TEXT   NOT NULL, -- as it was asked for: id or id@version
    policy_id         TEXT   NOT NULL, -- what that meant when it came into force
    policy_version    TEXT   NOT NULL,
    status            TEXT   NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
    owner             TEXT   NOT NULL,
    contact           TEXT   NOT NULL,
    quotas            TEXT   NOT NULL, -- JSON object of limits
    created_at        BIGINT NOT NULL,
    updated_at        BIGINT NOT NULL
);

-- Revisions are never changed; the newest one of an id is what it means.
CREATE TABLE authorities (
    tenant     TEXT   NOT NULL, -- the owner
    id         TEXT   NOT NULL,
    revision   BIGINT NOT NULL,
    issuer     TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    scope      TEXT   NOT NULL, -- JSON array
    valid_from BIGINT NOT NULL,
    valid_to   BIGINT NOT NULL,
    proof      TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id, revision)
);

CREATE TABLE policies (
    tenant      TEXT   NOT NULL, -- the owner
    id          TEXT   NOT NULL,
    version     TEXT   NOT NULL,
    number      BIGINT NOT NULL, -- 1, 2, …: which version is newest
    cedar       TEXT   NOT NULL,
    scope       TEXT   NOT NULL, -- JSON array
    description TEXT   NOT NULL,
    hash        TEXT   NOT NULL, -- sha256:<hex> of cedar
    status      TEXT   NOT NULL CHECK (status IN ('active', 'deprecated')),
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, id, version),
    UNIQUE (tenant, id, number)
);
