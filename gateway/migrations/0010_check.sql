-- A cell that its check stopped was never in a kernel: a session that is restored does not run it.
ALTER TABLE cell ADD COLUMN stopped boolean NOT NULL DEFAULT false;
