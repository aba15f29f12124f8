-- Under which key a caller asked for a session: who asks again with it, of any gateway, gets the same one.
CREATE TABLE session_key (
    principal text NOT NULL,
    key       text NOT NULL,
    digest    text NOT NULL,                -- of what was asked for
    session   text NOT NULL UNIQUE REFERENCES session ON DELETE CASCADE,
    PRIMARY KEY (principal, key)
);
ALTER TABLE session_key ENABLE ROW LEVEL SECURITY;

-- The first cell of the kernel that the session has now: those before it were forgotten by a restart.
ALTER TABLE session ADD COLUMN first_cell integer NOT NULL DEFAULT 1;
CREATE INDEX session_newest ON session (created DESC, id);
