-- What waits for a person, what the person said, and what became of it.
ALTER TABLE call DROP CONSTRAINT call_state_check;
ALTER TABLE call ADD CONSTRAINT call_state_check CHECK
    (state IN ('decided', 'executing', 'applied', 'failed', 'unknown', 'pending', 'denied', 'reverted'));
ALTER TABLE cell DROP CONSTRAINT cell_status_check;
ALTER TABLE cell ADD CONSTRAINT cell_status_check CHECK
    (status IN ('running', 'ok', 'error', 'interrupted', 'dead', 'paused'));

-- The request that the call was a part of last; and who took back what it did.
ALTER TABLE call ADD COLUMN approval text;
ALTER TABLE call ADD COLUMN reverted_by text;
ALTER TABLE call ADD COLUMN reverted timestamptz;
ALTER TABLE call ADD COLUMN reverting_until timestamptz;    -- a gateway is about it until then
-- Writes of the last hour are counted before each write.
CREATE INDEX call_writes ON call (tenant, started) WHERE effect <> 'read';

CREATE TABLE approval (
    id            text PRIMARY KEY,
    tenant        text NOT NULL,
    principal     text NOT NULL,               -- whose session asks
    role          text NOT NULL,
    session       text NOT NULL REFERENCES session ON DELETE CASCADE,
    cell          text NOT NULL,
    title         text NOT NULL DEFAULT '',    -- of a batch, in the cell's own words
    batch         boolean NOT NULL DEFAULT false,
    state         text NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'withdrawn')),
    created       timestamptz NOT NULL,
    expires       timestamptz NOT NULL,
    decided       timestamptz,
    decided_by    text NOT NULL DEFAULT '',
    note          text NOT NULL DEFAULT '',    -- what the person said, or why nobody can decide any more
    held_until    timestamptz NOT NULL,        -- by the database's clock: until then a gateway holds the calls
    answered      timestamptz,                 -- by the database's clock: when it was decided
    claimed_by    text NOT NULL DEFAULT '',    -- the gateway that runs the cell again
    claimed_until timestamptz,                 -- by the database's clock
    resumed       timestamptz,                 -- the cell has had the answer
    outcome       text NOT NULL DEFAULT '',
    told          boolean NOT NULL DEFAULT false
);
CREATE INDEX approval_open ON approval (tenant, created) WHERE state = 'pending';
CREATE INDEX approval_due ON approval (session, cell) WHERE resumed IS NULL;
CREATE INDEX approval_session ON approval (session);

-- One row per call of a request. It binds what was shown to the arguments that were shown.
CREATE TABLE approval_call (
    approval   text NOT NULL REFERENCES approval ON DELETE CASCADE,
    position   integer NOT NULL,               -- from 1
    call       bigint NOT NULL REFERENCES call ON DELETE CASCADE,
    args_hash  text NOT NULL,
    reason     text NOT NULL,                  -- why it was asked
    view       json NOT NULL,                  -- what the person is shown
    approved   boolean,
    open       boolean NOT NULL DEFAULT true,
    PRIMARY KEY (approval, position)
);
CREATE UNIQUE INDEX approval_call_open ON approval_call (call) WHERE open;
CREATE INDEX approval_call_call ON approval_call (call);

ALTER TABLE approval ENABLE ROW LEVEL SECURITY;
ALTER TABLE approval_call ENABLE ROW LEVEL SECURITY;
