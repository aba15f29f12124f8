-- Tools of MCP servers: what their servers say of them, and what people decided about that.

-- One row per tool that a server has ever listed. `definition` is the one that may be called: the first that was seen,
-- or the last that a person accepted. As json, not jsonb: the text stays, so its digest does.
CREATE TABLE foreign_tool (
    owner          text NOT NULL,           -- the tenant whose configuration has the server; '' where it is everyone's
    server         text NOT NULL,           -- as cells import it
    name           text NOT NULL,           -- as the server says it: untrusted, like all of the definition
    definition     json NOT NULL,
    digest         text NOT NULL,
    offered        json,                    -- what the server says now, where that is another one: waits for a person
    offered_digest text,
    listed         boolean NOT NULL,        -- false: the server has it no more
    seen           timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (owner, server, name)
);

-- Never changed, only added to: the last one counts, the others say how it came to that.
CREATE TABLE foreign_decision (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    principal  text NOT NULL,
    tenant     text NOT NULL,               -- whom it concerns; '' for all
    owner      text NOT NULL,
    server     text NOT NULL,
    name       text NOT NULL,
    action     text NOT NULL CHECK (action IN ('classify', 'accept')),
    digest     text NOT NULL,               -- of the definition that was looked at
    effect     text CHECK (effect IN ('read', 'write', 'critical')),
    roles      text[],
    idempotent boolean,
    CHECK ((action = 'classify') = (effect IS NOT NULL AND roles IS NOT NULL AND idempotent IS NOT NULL))
);
CREATE INDEX foreign_decision_tool ON foreign_decision (owner, server, name, id);

-- One more with every change of the two, in the same transaction: gateways read again when it is another.
CREATE TABLE foreign_revision (revision bigint NOT NULL);
INSERT INTO foreign_revision VALUES (0);

ALTER TABLE foreign_revision ENABLE ROW LEVEL SECURITY;
ALTER TABLE foreign_tool ENABLE ROW LEVEL SECURITY;
ALTER TABLE foreign_decision ENABLE ROW LEVEL SECURITY;
