-- Long work (servers/work.py): where it stopped, and each run of it.
CREATE TABLE work_checkpoint (
    tenant text NOT NULL,
    name   text NOT NULL,
    state  jsonb NOT NULL,
    saved  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, name)
);
ALTER TABLE work_checkpoint ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON work_checkpoint TO omniops_tool
    USING (tenant = current_setting('omniops.tenant', true)) WITH CHECK (tenant = current_setting('omniops.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON work_checkpoint TO omniops_tool;

CREATE TABLE work_run (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant       text NOT NULL,
    workload     text NOT NULL,
    tool         text NOT NULL,
    session      text NOT NULL,                     -- no reference: a run outlives it
    call         text NOT NULL,                     -- its idempotency key; a call that is resumed has several runs
    state        text NOT NULL DEFAULT 'running',   -- done | failed | stopped; running, if its gateway still lives
    done         bigint NOT NULL DEFAULT 0,
    total        bigint,
    unit         text NOT NULL DEFAULT '',
    note         text NOT NULL DEFAULT '',
    error        text NOT NULL DEFAULT '',
    rows         bigint NOT NULL DEFAULT 0,
    bytes        bigint NOT NULL DEFAULT 0,
    calls        bigint NOT NULL DEFAULT 0,
    retries      bigint NOT NULL DEFAULT 0,
    peak_mb      double precision NOT NULL DEFAULT 0,
    dollars      double precision NOT NULL DEFAULT 0,
    direct_bytes bigint NOT NULL DEFAULT 0,         -- of JSON that single calls would have put before a model
    report_bytes bigint NOT NULL DEFAULT 0,         -- of JSON that its cell got
    started      timestamptz NOT NULL DEFAULT now(),
    seen         timestamptz NOT NULL DEFAULT now(), -- alive then
    ended        timestamptz
);
CREATE INDEX work_run_tenant ON work_run (tenant, started DESC);
