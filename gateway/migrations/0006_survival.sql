-- What a gateway needs to go on with a cell that the one before it had begun.

-- The calls of a cell's present run, by the ids that its kernel gave them: one that comes again, because its connection
-- broke, is known by it, and a new one that is equal to an earlier one is not taken for it. Gone when the cell is over.
CREATE TABLE request (
    session    text NOT NULL,
    cell       text NOT NULL,
    id         text NOT NULL,               -- as the kernel says: untrusted, harmless outside of its own cell
    call       bigint NOT NULL REFERENCES call ON DELETE CASCADE,
    replayed   boolean NOT NULL,            -- the journal had answered it before this run
    PRIMARY KEY (session, cell, id)
);
CREATE INDEX request_call ON request (call);
ALTER TABLE request ENABLE ROW LEVEL SECURITY;

-- Under this id the cell went to its kernel, and until then it may run there. Written before it is sent.
ALTER TABLE cell ADD COLUMN msg_id text NOT NULL DEFAULT '';
ALTER TABLE cell ADD COLUMN deadline timestamptz;

-- Why the session's kernel is gone, for gateways after the one that knows.
ALTER TABLE session ADD COLUMN reason text NOT NULL DEFAULT '';
