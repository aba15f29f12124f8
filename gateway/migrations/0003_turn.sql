-- The turns of conversations: what the model was told and said, so that any gateway can go on with them.
CREATE TABLE turn (
    session    text NOT NULL REFERENCES session ON DELETE CASCADE,
    index      integer NOT NULL,
    mode       text NOT NULL CHECK (mode IN ('cells', 'direct')),
    messages   json NOT NULL,               -- chat-completions messages, the customer's first
    reason     text NOT NULL,               -- why it ended: 'answered', or what kept it from an answer
    usage      json NOT NULL,
    started    timestamptz NOT NULL,
    ended      timestamptz NOT NULL,
    PRIMARY KEY (session, index)
);
ALTER TABLE turn ENABLE ROW LEVEL SECURITY;
