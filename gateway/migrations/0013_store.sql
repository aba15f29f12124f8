-- The copy of a tenant's store that the sync keeps (servers/woocommerce/sync): for reports and questions that the
-- store's API would take hours for. `data` has the fields that matter; the columns beside it are what reports filter by.
CREATE TABLE store_product (
    tenant         text NOT NULL,
    id             bigint NOT NULL,
    content_hash   text NOT NULL,                -- of `data`: what has the same is not written again
    data           jsonb NOT NULL,
    name           text NOT NULL,
    sku            text NOT NULL,
    type           text NOT NULL,
    status         text NOT NULL,
    price          numeric,
    stock_status   text NOT NULL,
    stock_quantity bigint,
    modified_at    timestamptz,
    synced_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);

CREATE TABLE store_variation (
    tenant         text NOT NULL,
    id             bigint NOT NULL,
    parent_id      bigint NOT NULL,
    content_hash   text NOT NULL,
    data           jsonb NOT NULL,
    sku            text NOT NULL,
    price          numeric,
    stock_status   text NOT NULL,
    stock_quantity bigint,
    modified_at    timestamptz,
    synced_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX store_variation_parent ON store_variation (tenant, parent_id);

CREATE TABLE store_customer (
    tenant       text NOT NULL,
    id           bigint NOT NULL,
    content_hash text NOT NULL,
    data         jsonb NOT NULL,
    email        text NOT NULL,
    first_name   text NOT NULL,
    last_name    text NOT NULL,
    created_at   timestamptz,
    synced_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX store_customer_email ON store_customer (tenant, lower(email));

CREATE TABLE store_order (
    tenant       text NOT NULL,
    id           bigint NOT NULL,
    content_hash text NOT NULL,
    data         jsonb NOT NULL,
    number       text NOT NULL,
    customer_id  bigint NOT NULL,                -- 0: a guest, known by email alone
    email        text NOT NULL,                  -- of the billing address
    status       text NOT NULL,
    currency     text NOT NULL,
    total        numeric NOT NULL,
    created_at   timestamptz,
    modified_at  timestamptz,
    synced_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
CREATE INDEX store_order_created ON store_order (tenant, created_at);
CREATE INDEX store_order_customer ON store_order (tenant, customer_id);
CREATE INDEX store_order_email ON store_order (tenant, lower(email));

CREATE TABLE store_order_item (
    tenant       text NOT NULL,
    order_id     bigint NOT NULL,
    line         bigint NOT NULL,                -- the line's id in the store
    product_id   bigint NOT NULL,                -- 0: the product is gone
    variation_id bigint NOT NULL,
    sku          text NOT NULL,
    name         text NOT NULL,
    quantity     numeric NOT NULL,
    total        numeric NOT NULL,
    PRIMARY KEY (tenant, order_id, line)
);
CREATE INDEX store_order_item_product ON store_order_item (tenant, product_id);

-- How far the sync of each kind is. `version` is compared before it is set: two syncs cannot both go on.
CREATE TABLE store_sync (
    tenant  text NOT NULL,
    kind    text NOT NULL,
    version bigint NOT NULL,
    state   jsonb NOT NULL,
    PRIMARY KEY (tenant, kind)
);

-- What a pass that is under way no longer found in the store; deleted at its end, if it is believed.
CREATE TABLE store_gone (
    tenant text NOT NULL,
    kind   text NOT NULL,
    id     bigint NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);

DO $$
DECLARE
    each text;
BEGIN
    FOREACH each IN ARRAY ARRAY['store_product', 'store_variation', 'store_customer', 'store_order',
                                'store_order_item', 'store_sync', 'store_gone'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', each);
        EXECUTE format('CREATE POLICY tenant ON %I TO omniops_tool USING (tenant = current_setting(''omniops.tenant'', true))'
                       ' WITH CHECK (tenant = current_setting(''omniops.tenant'', true))', each);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO omniops_tool', each);
    END LOOP;
END
$$;
