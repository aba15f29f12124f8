-- Return types of tools whose servers declare none, learned from results: types and names of keys, never a value.
CREATE TABLE observed_shape (
    tenant     text NOT NULL,
    tool       text NOT NULL,               -- server.name
    digest     text NOT NULL,               -- of the definition that answered: another one is learned anew
    shape      jsonb NOT NULL,              -- servers.foreign.observing.Seen
    changed    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, tool)
);
ALTER TABLE observed_shape ENABLE ROW LEVEL SECURITY;
