-- Schedules (gateway/schedules): since when each is known, and each time it was due. They hold no personal data.
CREATE TABLE schedule (
    tenant text NOT NULL,
    name   text NOT NULL,
    rule   text NOT NULL,                  -- cron and zone; with another one, it counts from then on
    since  timestamptz NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE schedule_run (
    tenant  text NOT NULL,
    name    text NOT NULL,
    due     timestamptz NOT NULL,
    -- running | ok | error | paused | ... as cells end | missed: nobody was there | skipped: the one before still ran
    state   text NOT NULL,
    gateway text NOT NULL DEFAULT '',
    session text NOT NULL DEFAULT '',       -- no reference: a run outlives it
    started timestamptz,
    ended   timestamptz,
    PRIMARY KEY (tenant, name, due)         -- who puts the row in has claimed it
);
