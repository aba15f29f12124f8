-- Sessions that Jupyter clients made as kernels, and what they call a session: a document and its kernel.
CREATE TABLE jupyter_kernel (
    session  text PRIMARY KEY REFERENCES session ON DELETE CASCADE,
    name     text NOT NULL                   -- of the kernelspec, as the client said it
);

CREATE TABLE jupyter_session (
    id       text PRIMARY KEY,
    tenant   text NOT NULL,
    kernel   text NOT NULL REFERENCES jupyter_kernel ON DELETE CASCADE,
    path     text NOT NULL,
    name     text NOT NULL,
    type     text NOT NULL,
    created  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, path)
);

ALTER TABLE jupyter_kernel ENABLE ROW LEVEL SECURITY;
ALTER TABLE jupyter_session ENABLE ROW LEVEL SECURITY;
