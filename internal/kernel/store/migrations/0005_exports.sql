CREATE TABLE exports (
    tenant      TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    profile     TEXT   NOT NULL,
    correlation TEXT   NOT NULL, -- only this correlation's events; '' is all
    from_seq    BIGINT NOT NULL,
    to_seq      BIGINT NOT NULL,
    event_ids   TEXT   NOT NULL, -- JSON array of ids, [] is all in range
    status      TEXT   NOT NULL CHECK (status IN ('pending', 'ready', 'failed')),
    reason      TEXT   NOT NULL,
    bundle_hash TEXT   NOT NULL,
    events      BIGINT NOT NULL,
    created_by  TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
