-- Who took a conversation that waited for a person, and when.
ALTER TABLE handover ADD COLUMN taken timestamptz, ADD COLUMN taken_by text NOT NULL DEFAULT '';
