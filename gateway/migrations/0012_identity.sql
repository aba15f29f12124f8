-- API keys. Of a key the database has its name and a digest of its secret: 256 random bits, which nobody finds by trying.
CREATE TABLE api_key (
    id         text PRIMARY KEY,            -- part of the key, and shown
    tenant     text,                        -- NULL: all
    role       text NOT NULL CHECK (role IN ('agent', 'analyst', 'ops', 'admin')),
    label      text NOT NULL,
    created    timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires    timestamptz,
    revoked    timestamptz,
    last_used  timestamptz
);
CREATE INDEX api_key_tenant ON api_key (tenant);

-- More than one while a key is rotated: the new one, and the one before until it expires.
CREATE TABLE api_key_secret (
    key     text NOT NULL REFERENCES api_key ON DELETE CASCADE,
    digest  bytea NOT NULL,                 -- SHA-256
    created timestamptz NOT NULL DEFAULT now(),
    expires timestamptz,
    PRIMARY KEY (key, digest)
);

ALTER TABLE api_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_key_secret ENABLE ROW LEVEL SECURITY;

-- Every gateway hears of a change, whoever makes it.
CREATE FUNCTION api_key_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('omniops_keys', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER api_key_changed AFTER INSERT OR DELETE OR UPDATE OF tenant, role, expires, revoked ON api_key
    FOR EACH STATEMENT EXECUTE FUNCTION api_key_changed();
CREATE TRIGGER api_key_secret_changed AFTER INSERT OR DELETE OR UPDATE ON api_key_secret
    FOR EACH STATEMENT EXECUTE FUNCTION api_key_changed();

-- The book of administration: by which role, from where, what came of it; and what is written stays.
ALTER TABLE administration ADD COLUMN role text NOT NULL DEFAULT '';
ALTER TABLE administration ADD COLUMN source text NOT NULL DEFAULT '';      -- an address, or 'command line'
ALTER TABLE administration ADD COLUMN outcome text NOT NULL DEFAULT 'done'; -- or the code of the refusal

CREATE FUNCTION administration_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is only added to';
END
$$;
CREATE TRIGGER administration_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON administration
    FOR EACH STATEMENT EXECUTE FUNCTION administration_stays();
