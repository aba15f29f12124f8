-- How a chat front end's conversation is recognised when it sends its next message. Digests: what front ends know their
-- users and conversations by may be personal.
CREATE TABLE conversation (
    session  text PRIMARY KEY REFERENCES session ON DELETE CASCADE,
    tenant   text NOT NULL,
    scope    text NOT NULL,                 -- of the caller, its user, and the customer
    key      text,                          -- of the id that the front end gave it; null: by what was said
    said     text NOT NULL DEFAULT '',      -- of all that customer and agent said, as the front end has it
    changed  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, scope, key)
);
CREATE INDEX conversation_said ON conversation (tenant, scope, said) WHERE key IS NULL;
ALTER TABLE conversation ENABLE ROW LEVEL SECURITY;
