-- Who does what one process alone should do, such as reading one partition of uploads, and until when by this database's
-- clock. A lease saves work and contention; nothing depends on it: whoever works on without one does what is done already.
CREATE TABLE synchrotron.leases (
    -- What is shared, and which part of it.
    work text COLLATE "C" NOT NULL,
    part integer NOT NULL CHECK (part >= 0),
    holder uuid NOT NULL,
    -- How many holders it has had.
    term bigint NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (work, part)
);

-- Who takes part in sharing it: each holds an equal share.
CREATE TABLE synchrotron.lease_holders (
    work text COLLATE "C" NOT NULL,
    holder uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (work, holder)
);

ALTER TABLE synchrotron.leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.lease_holders ENABLE ROW LEVEL SECURITY;
