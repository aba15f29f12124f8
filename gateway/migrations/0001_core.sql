-- Sessions, cells and the journal of tool calls. Plain SQL, applied in order, the same on every Postgres.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE session (
    id         text PRIMARY KEY,
    tenant     text NOT NULL,
    principal  text NOT NULL,
    role       text NOT NULL CHECK (role IN ('agent', 'analyst')),
    title      text NOT NULL DEFAULT '',
    customer   bigint,                      -- verified customer, pinned once
    state      text NOT NULL CHECK (state IN ('live', 'lost', 'ended')),
    created    timestamptz NOT NULL DEFAULT now(),
    ended      timestamptz
);

CREATE TABLE cell (
    session    text NOT NULL REFERENCES session ON DELETE CASCADE,
    id         text NOT NULL,
    index      integer NOT NULL,
    code       text NOT NULL,
    status     text NOT NULL CHECK (status IN ('running', 'ok', 'error', 'interrupted', 'dead')),
    started    timestamptz NOT NULL,
    ended      timestamptz,
    PRIMARY KEY (session, id),
    UNIQUE (session, index)
);

-- One row per call, written before the call goes out. Audit, replay and ledger are this table.
CREATE TABLE call (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session         text NOT NULL REFERENCES session ON DELETE CASCADE,
    cell            text NOT NULL,
    tool            text NOT NULL,
    args            json NOT NULL,          -- canonical: keys sorted, defaults filled in
    args_hash       text NOT NULL,
    occurrence      integer NOT NULL,
    effect          text NOT NULL CHECK (effect IN ('read', 'write', 'critical')),
    idempotency_key text NOT NULL UNIQUE,
    state           text NOT NULL CHECK (state IN ('decided', 'executing', 'applied', 'failed', 'unknown')),
    result          text,                   -- JSON text, byte for byte as the kernel gets it (jsonb changes it, and refuses NUL)
    error           json,
    result_bytes    bigint NOT NULL DEFAULT 0,
    tenant          text NOT NULL,
    principal       text NOT NULL,
    started         timestamptz NOT NULL DEFAULT now(),
    ended           timestamptz,
    UNIQUE (session, cell, tool, args_hash, occurrence)
);
CREATE INDEX call_tenant_started ON call (tenant, started);

-- The gateway owns these tables and is not bound by this. Everybody else (tools' role, an API that is put before the
-- database) sees no row.
ALTER TABLE session ENABLE ROW LEVEL SECURITY;
ALTER TABLE cell ENABLE ROW LEVEL SECURITY;
ALTER TABLE call ENABLE ROW LEVEL SECURITY;
