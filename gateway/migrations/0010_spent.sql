-- What a call brought and cost, for budgets that outlive a gateway; and results that are tables.
ALTER TABLE call ADD COLUMN result_rows bigint NOT NULL DEFAULT 0;
ALTER TABLE call ADD COLUMN batches integer NOT NULL DEFAULT 0;      -- of a result that streamed, and is not kept
ALTER TABLE call ADD COLUMN cost double precision NOT NULL DEFAULT 0; -- US dollars, as the tool says
ALTER TABLE call ADD COLUMN result_table bytea;                       -- Arrow IPC stream, byte for byte as the kernel gets it
-- Megabytes of numbers: compressing them would take longer than writing them.
ALTER TABLE call ALTER COLUMN result_table SET STORAGE EXTERNAL;
