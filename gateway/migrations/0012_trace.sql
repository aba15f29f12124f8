-- By which a later gateway goes on with the span of a cell that runs; '' where it is not traced.
ALTER TABLE cell ADD COLUMN trace text NOT NULL DEFAULT '';
