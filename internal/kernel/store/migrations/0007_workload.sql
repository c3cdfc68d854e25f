CREATE TABLE workloads (
    tenant         TEXT   NOT NULL,
    id             TEXT   NOT NULL,
    name           TEXT   NOT NULL,
    envelope       TEXT   NOT NULL,
    image_ref      TEXT   NOT NULL,
    repository     TEXT   NOT NULL,
    image_digest   TEXT   NOT NULL,
    policy_ref     TEXT   NOT NULL,
    command        TEXT   NOT NULL, -- JSON array, [] is the image's own
    env            TEXT   NOT NULL, -- JSON object
    cpu_millis     BIGINT NOT NULL,
    memory_bytes   BIGINT NOT NULL,
    pids           BIGINT NOT NULL,
    restart        TEXT   NOT NULL CHECK (restart IN ('never', 'on-failure', 'always')),
    jurisdiction   TEXT   NOT NULL,
    classification TEXT   NOT NULL,
    status         TEXT   NOT NULL CHECK (status IN ('pending', 'running', 'stopped', 'failed', 'terminated')),
    status_reason  TEXT   NOT NULL,
    exit_code      BIGINT, -- of the last run that ended
    run            BIGINT NOT NULL, -- which run this is, from 1; container <id>.<run>
    placement      TEXT   NOT NULL, -- the node that runs it
    correlation    TEXT   NOT NULL, -- of the request that created it
    created_by     TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX workloads_live ON workloads (placement, status) WHERE status IN ('pending', 'running');
