-- Background work (package jobs). At most one unfinished job per (kind, unique_key).
CREATE TABLE jobs (
    id          TEXT   NOT NULL PRIMARY KEY,
    kind        TEXT   NOT NULL,
    tenant      TEXT   NOT NULL,
    unique_key  TEXT   NOT NULL,
    correlation TEXT   NOT NULL,
    args        TEXT   NOT NULL,
    run_at      BIGINT NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('ready', 'running', 'dead')),
    attempt     BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    owner       TEXT   NOT NULL,
    last_error  TEXT   NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE UNIQUE INDEX jobs_unique ON jobs (kind, unique_key);
CREATE INDEX jobs_due ON jobs (run_at, id) WHERE state IN ('ready', 'running');
