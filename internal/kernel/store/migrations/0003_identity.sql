-- People and services of each tenant. The names auth_users … auth_user_permissions
-- are the task contract's.
CREATE TABLE auth_users (
    tenant      TEXT     NOT NULL,
    username    TEXT     NOT NULL,
    password    TEXT     NOT NULL, -- argon2id in the PHC string format; empty: no password signs in
    group_names TEXT     NOT NULL, -- JSON array: whose approvals this person can give
    disabled    SMALLINT NOT NULL CHECK (disabled IN (0, 1)),
    generation  BIGINT   NOT NULL, -- tokens of an earlier one are void
    created_at  BIGINT   NOT NULL,
    updated_at  BIGINT   NOT NULL,
    PRIMARY KEY (tenant, username)
);

CREATE TABLE auth_roles (
    tenant     TEXT     NOT NULL,
    name       TEXT     NOT NULL,
    built_in   SMALLINT NOT NULL CHECK (built_in IN (0, 1)),
    created_at BIGINT   NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE auth_permissions (
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE auth_user_roles (
    tenant   TEXT NOT NULL,
    username TEXT NOT NULL,
    role     TEXT NOT NULL,
    PRIMARY KEY (tenant, username, role),
    FOREIGN KEY (tenant, username) REFERENCES auth_users (tenant, username) ON DELETE CASCADE,
    FOREIGN KEY (tenant, role) REFERENCES auth_roles (tenant, name)
);

CREATE TABLE auth_role_permissions (
    tenant     TEXT NOT NULL,
    role       TEXT NOT NULL,
    permission TEXT NOT NULL,
    PRIMARY KEY (tenant, role, permission),
    FOREIGN KEY (tenant, role) REFERENCES auth_roles (tenant, name) ON DELETE CASCADE,
    FOREIGN KEY (tenant, permission) REFERENCES auth_permissions (tenant, name)
);

CREATE TABLE auth_user_permissions (
    tenant     TEXT NOT NULL,
    username   TEXT NOT NULL,
    permission TEXT NOT NULL,
    PRIMARY KEY (tenant, username, permission),
    FOREIGN KEY (tenant, username) REFERENCES auth_users (tenant, username) ON DELETE CASCADE,
    FOREIGN KEY (tenant, permission) REFERENCES auth_permissions (tenant, name)
);

-- Machine secrets are random and long, so what is kept of them is a plain SHA-256.
CREATE TABLE auth_service_accounts (
    tenant      TEXT   NOT NULL,
    client_id   TEXT   NOT NULL,
    secret_hash BYTEA  NOT NULL,
    role_id     TEXT   NOT NULL, -- the work role it fills; empty is none
    permissions TEXT   NOT NULL, -- JSON array
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, client_id)
);

CREATE TABLE auth_workspace_secrets (
    tenant      TEXT   NOT NULL,
    name        TEXT   NOT NULL, -- the principal that the secret signs in
    secret_hash BYTEA  NOT NULL,
    permissions TEXT   NOT NULL, -- JSON array
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- One row per sign-in (a family of refresh tokens): of the tokens it had, only
-- the last is good, and another one coming back ends all of them.
CREATE TABLE auth_refresh_tokens (
    family      TEXT   NOT NULL PRIMARY KEY,
    tenant      TEXT   NOT NULL,
    account     TEXT   NOT NULL CHECK (account IN ('user', 'service', 'workspace')),
    name        TEXT   NOT NULL,
    token_hash  BYTEA  NOT NULL, -- SHA-256 of the good token's id
    rotations   BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    used_at     BIGINT NOT NULL, -- when the last rotation was
    expires_at  BIGINT NOT NULL,
    revoked_at  BIGINT NOT NULL, -- 0: it is good
    revoked_for TEXT   NOT NULL
);
CREATE INDEX auth_refresh_tokens_owner ON auth_refresh_tokens (tenant, name, created_at);
CREATE INDEX auth_refresh_tokens_expiry ON auth_refresh_tokens (tenant, expires_at);

-- The platform's ES256 keys; private is PKCS #8 sealed under the master key.
CREATE TABLE signing_keys (
    kid            TEXT   NOT NULL PRIMARY KEY, -- RFC 7638 thumbprint
    private        BYTEA  NOT NULL,
    created_at     BIGINT NOT NULL,
    verifies_until BIGINT NOT NULL -- 0: it signs; later: its tokens are good until then
);
