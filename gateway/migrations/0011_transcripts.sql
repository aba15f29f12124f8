-- What transcripts are found by, and how far each one's record has come. The records themselves are files; a record that
-- does not have the line that is named here was cut short or exchanged.
CREATE TABLE transcript (
    session    text PRIMARY KEY,
    tenant     text NOT NULL,
    role       text NOT NULL,
    title      text NOT NULL,
    state      text NOT NULL,
    created    timestamptz NOT NULL,
    changed    timestamptz NOT NULL DEFAULT now(),
    seq        bigint NOT NULL,             -- number of the record's last line
    head       text NOT NULL,               -- and its hash
    bytes      bigint NOT NULL,
    cells      integer NOT NULL,
    messages   integer NOT NULL,
    tools      text[] NOT NULL,             -- that were called
    errors     text[] NOT NULL,             -- names of errors, and 'interrupted', 'dead'
    dollars    double precision NOT NULL,   -- what the model cost; what tools cost is in the journal
    erased     timestamptz                  -- when contents were removed last
);
CREATE INDEX transcript_tenant_created ON transcript (tenant, created);
CREATE INDEX transcript_created ON transcript (created);
CREATE INDEX transcript_tools ON transcript USING gin (tools);
CREATE INDEX transcript_errors ON transcript USING gin (errors);
ALTER TABLE transcript ENABLE ROW LEVEL SECURITY;
