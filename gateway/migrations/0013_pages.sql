-- Sites that were crawled: their pages, in pieces with vectors, and the frontier of crawls that are under way.
CREATE TABLE page_crawl (
    tenant   text NOT NULL,
    site     text NOT NULL,                     -- the URL that crawls of it begin with
    run      text NOT NULL,                     -- who crawls it now: one that was overtaken writes nothing more
    started  timestamptz NOT NULL DEFAULT now(),
    finished timestamptz,                       -- null: under way, or broken off
    options  jsonb NOT NULL,                    -- another crawl goes on only with the same ones
    counts   jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, site)
);

CREATE TABLE page_frontier (
    tenant text NOT NULL,
    site   text NOT NULL,
    url    text NOT NULL,
    depth  integer NOT NULL,
    seq    bigint GENERATED ALWAYS AS IDENTITY,
    done   text,                                -- null: to be fetched; else what came of it
    PRIMARY KEY (tenant, site, url),
    FOREIGN KEY (tenant, site) REFERENCES page_crawl ON DELETE CASCADE
);

CREATE TABLE page (
    tenant        text NOT NULL,
    url           text NOT NULL,
    site          text NOT NULL,
    title         text NOT NULL,
    description   text NOT NULL,
    language      text NOT NULL,
    product       jsonb,                        -- {name, sku, price, ...} in the page's words
    sku           text,
    price         numeric(14, 4),
    currency      text,
    links         text[] NOT NULL,              -- for crawls to which it answers "not modified"
    etag          text NOT NULL,
    last_modified text NOT NULL,
    content_hash  text NOT NULL,                -- of what its chunks and their vectors are made from
    recipe        text NOT NULL,                -- which model and limits made them
    truncated     boolean NOT NULL,
    fetched       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, url)
);
CREATE INDEX page_site ON page (tenant, site);
CREATE INDEX page_content ON page (tenant, content_hash);
CREATE INDEX page_sku ON page (tenant, sku);

CREATE TABLE page_chunk (
    tenant    text NOT NULL,
    url       text NOT NULL,
    position  integer NOT NULL,
    heading   text NOT NULL,
    text      text NOT NULL,
    tokens    integer NOT NULL,
    words     tsvector NOT NULL,
    -- No approximate index: it is asked within one tenant, where an exact scan is fast and misses none.
    embedding vector(384) NOT NULL,
    model     text NOT NULL,
    PRIMARY KEY (tenant, url, position),
    FOREIGN KEY (tenant, url) REFERENCES page ON DELETE CASCADE
);
CREATE INDEX page_chunk_words ON page_chunk USING gin (words);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['page_crawl', 'page_frontier', 'page', 'page_chunk'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I TO omniops_tool USING (tenant = current_setting(''omniops.tenant'', true))'
            ' WITH CHECK (tenant = current_setting(''omniops.tenant'', true))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO omniops_tool', name);
    END LOOP;
END
$$;
