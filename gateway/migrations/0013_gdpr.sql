-- What people were given of their data, and what was erased. `subject` is a pseudonym: a keyed digest of the e-mail or id.
CREATE TABLE gdpr_export (
    id         text PRIMARY KEY,
    tenant     text NOT NULL,
    subject    text NOT NULL,
    principal  text NOT NULL,
    session    text NOT NULL,               -- that asked for it
    gateway    text NOT NULL,               -- that has the file
    state      text NOT NULL CHECK (state IN ('writing', 'ready', 'removed')),
    created    timestamptz NOT NULL DEFAULT now(),
    expires    timestamptz NOT NULL,
    revoked    timestamptz,
    removed    timestamptz,
    bytes      bigint NOT NULL DEFAULT 0,
    sha256     text NOT NULL DEFAULT '',
    uses       integer NOT NULL DEFAULT 0
);
CREATE INDEX gdpr_export_file ON gdpr_export (gateway, expires) WHERE state <> 'removed';
CREATE INDEX gdpr_export_subject ON gdpr_export (tenant, subject);

CREATE TABLE gdpr_erasure (
    id            text PRIMARY KEY,         -- of the call that asked for it
    tenant        text NOT NULL,
    subject       text NOT NULL,
    emails        text[] NOT NULL,          -- emptied when it is done
    customers     bigint[] NOT NULL,        -- the same
    principal     text NOT NULL,
    session       text NOT NULL,            -- that asked for it
    reason        text NOT NULL,
    state         text NOT NULL CHECK (state IN ('running', 'waiting', 'done')),
    report        jsonb NOT NULL DEFAULT '{}',
    created       timestamptz NOT NULL DEFAULT now(),
    done          timestamptz,
    claimed_by    text NOT NULL DEFAULT '', -- the gateway that is about it
    claimed_until timestamptz               -- by the database's clock
);
CREATE INDEX gdpr_erasure_open ON gdpr_erasure (tenant) WHERE state <> 'done';
CREATE INDEX gdpr_erasure_subject ON gdpr_erasure (tenant, subject);

ALTER TABLE gdpr_export ENABLE ROW LEVEL SECURITY;
ALTER TABLE gdpr_erasure ENABLE ROW LEVEL SECURITY;
