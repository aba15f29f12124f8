-- Tenants' credentials, encrypted by the gateway: the database never has a value or a key.
CREATE TABLE credential (
    tenant     text NOT NULL,
    name       text NOT NULL,
    format     smallint NOT NULL,           -- how it is sealed; part of what is authenticated
    key_id     text NOT NULL,               -- digest of the key that it is sealed with
    sealed     bytea NOT NULL,              -- nonce and ciphertext
    changed    timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- What people who run the gateway did to it: who, when, to what; never a value.
CREATE TABLE administration (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    principal  text NOT NULL,
    tenant     text NOT NULL,               -- '' for what concerns them all
    action     text NOT NULL,               -- such as 'credential.set'
    subject    text NOT NULL
);
CREATE INDEX administration_tenant ON administration (tenant, at);

ALTER TABLE credential ENABLE ROW LEVEL SECURITY;
ALTER TABLE administration ENABLE ROW LEVEL SECURITY;
