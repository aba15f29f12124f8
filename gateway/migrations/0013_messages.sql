-- What customers and agents said to each other, a row each: of live chats, as they go, and of files that were loaded.
-- Reports aggregate it here (servers/analytics). It holds personal data: `text`, and whose it is by `customer`.
CREATE TABLE chat_message (
    tenant       text NOT NULL,
    -- of a live chat its session; the order of bytes is all that is needed, and sorts fast
    conversation text COLLATE "C" NOT NULL,
    seq          integer NOT NULL,
    -- when the conversation began: a report's span takes conversations whole
    started      timestamptz NOT NULL,
    at           timestamptz NOT NULL,
    -- false: its source had no times, `at` only keeps the order
    dated        boolean NOT NULL DEFAULT true,
    role         text NOT NULL CHECK (role IN ('customer', 'agent')),
    customer     bigint,                        -- upstream id, once the customer was verified
    text         text NOT NULL,
    -- what it was about, in order: a customer's labelled intents; of an agent's, the tools that it called and then
    -- 'answered' or 'unanswered'
    intents      text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, conversation, seq)
);
CREATE INDEX chat_message_started ON chat_message (tenant, started);
ALTER TABLE chat_message ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON chat_message TO omniops_tool
    USING (tenant = current_setting('omniops.tenant', true)) WITH CHECK (tenant = current_setting('omniops.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON chat_message TO omniops_tool;
