-- What tools read and write for a tenant. Tools run as omniops_tool, which sees the rows of the tenant that
-- `omniops.tenant` names in its transaction, and no other table.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'omniops_tool') THEN
        CREATE ROLE omniops_tool NOLOGIN;
    END IF;
    EXECUTE format('GRANT omniops_tool TO %I', current_user);
END
$$;

CREATE TABLE product (
    tenant       text NOT NULL,
    id           bigint NOT NULL,               -- the store's id
    name         text NOT NULL,
    slug         text NOT NULL,
    permalink    text NOT NULL,
    type         text NOT NULL,
    categories   text[] NOT NULL,
    description  text NOT NULL,
    attributes   jsonb NOT NULL,                -- {name: [option, ...]}
    variants     jsonb NOT NULL,                -- [{item_id, options, price, in_stock}]
    price_from   numeric(12, 2),
    price_to     numeric(12, 2),
    in_stock     boolean NOT NULL,
    words        tsvector NOT NULL,
    -- No approximate index: with a tenant's thousands of products an exact scan is fast, and it misses none.
    embedding    vector(384) NOT NULL,
    content_hash text NOT NULL,                 -- of what the row and its embedding are made from
    loaded       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX product_words ON product USING gin (words);

-- Conversations that wait for a person. No reference to session: a hand-over outlives it.
CREATE TABLE handover (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant          text NOT NULL,
    session         text NOT NULL,
    customer        bigint,
    summary         text NOT NULL,
    idempotency_key text NOT NULL,
    created         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, idempotency_key)
);

ALTER TABLE product ENABLE ROW LEVEL SECURITY;
ALTER TABLE handover ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON product TO omniops_tool
    USING (tenant = current_setting('omniops.tenant', true)) WITH CHECK (tenant = current_setting('omniops.tenant', true));
CREATE POLICY tenant ON handover TO omniops_tool
    USING (tenant = current_setting('omniops.tenant', true)) WITH CHECK (tenant = current_setting('omniops.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON product TO omniops_tool;
GRANT SELECT, INSERT ON handover TO omniops_tool;
