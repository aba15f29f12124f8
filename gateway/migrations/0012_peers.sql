-- Gateways that share this database, whose each session is, and its record for whoever comes to have it next.
CREATE TABLE gateway (
    id          text PRIMARY KEY,           -- of its data folder
    epoch       bigint NOT NULL DEFAULT 1,  -- one more at every start: of two with one id the later one counts
    url         text NOT NULL DEFAULT '',   -- where other gateways reach it; '' while it starts
    alive_until timestamptz NOT NULL,       -- by the database's clock
    started     timestamptz NOT NULL DEFAULT now()
);

-- By which gateways know each other's requests. No tool's role sees it.
CREATE TABLE gateway_secret (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret bytea NOT NULL
);

-- A session is one gateway's at a time. `fence` grows whenever it is taken: what an earlier owner still writes is refused.
ALTER TABLE session ADD COLUMN gateway text NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN fence bigint NOT NULL DEFAULT 0;
CREATE INDEX session_gateway ON session (gateway) WHERE state <> 'ended';

-- The lines of records, byte for byte as in the file of the gateway that wrote them.
CREATE TABLE transcript_line (
    session text NOT NULL,
    seq     bigint NOT NULL,
    hash    text NOT NULL,
    line    bytea NOT NULL,
    PRIMARY KEY (session, seq)
);
-- Compressing megabytes of output would take longer than writing them.
ALTER TABLE transcript_line ALTER COLUMN line SET STORAGE EXTERNAL;

ALTER TABLE gateway ENABLE ROW LEVEL SECURITY;
ALTER TABLE gateway_secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE transcript_line ENABLE ROW LEVEL SECURITY;
