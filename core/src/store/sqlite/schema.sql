-- The sync tables beside the app's own. Positions order bytewise, as ReplayKey does.

CREATE TABLE client_sync_status (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    schema_version INTEGER NOT NULL,
    client_id      BLOB    NOT NULL,           -- this device
    user_id        TEXT,                       -- whose data this is
    epoch          BLOB,                       -- the server's history that the cursors belong to
    clock          INTEGER NOT NULL DEFAULT 0, -- newest HLC made or seen
    clock_offset   INTEGER NOT NULL DEFAULT 0, -- what to add to the wall clock to have the server's, in milliseconds
    generation     INTEGER NOT NULL DEFAULT 0, -- counts rewrites of history
    shape          BLOB,                       -- names of the tracked tables and their columns, as they were last
    unfit_snapshot INTEGER NOT NULL DEFAULT 0  -- a snapshot had tables or columns that are not here
) STRICT;

CREATE TABLE client_audiences (
    audience_key TEXT    PRIMARY KEY,
    cursor       INTEGER NOT NULL,             -- everything through this server_ingest_id is applied
    stale        INTEGER NOT NULL DEFAULT 0,   -- its rows must be taken from a snapshot
    floor        BLOB                          -- ReplayKey of the snapshot's newest position; NULL: the whole log is here
) STRICT, WITHOUT ROWID;

-- A snapshot that is being taken; it replaces rows only when it is whole.
CREATE TABLE local_snapshot (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    snapshot_id BLOB    NOT NULL,
    header      BLOB    NOT NULL,
    chunks      INTEGER NOT NULL,              -- how many are here
    rows_done   INTEGER NOT NULL
) STRICT;

CREATE TABLE local_snapshot_chunks (
    chunk INTEGER PRIMARY KEY,
    rows  BLOB NOT NULL
) STRICT;

CREATE TABLE action_records (
    id                 BLOB    PRIMARY KEY,
    position_clock     INTEGER NOT NULL,       -- where it takes effect: its own replay key, or the amended action's
    position_client_id BLOB    NOT NULL,
    position_action_id BLOB    NOT NULL,
    clock              INTEGER NOT NULL,
    client_id          BLOB    NOT NULL,
    user_id            TEXT    NOT NULL,
    tag                TEXT,                   -- NULL: a correction of position_action_id
    args               BLOB,
    reason             TEXT,                   -- of a correction that removes
    server_ingest_id   INTEGER,                -- NULL: not accepted yet
    row_count          INTEGER NOT NULL,       -- in all audiences together
    executed           BLOB,                   -- digest of what it did when it was executed here
    faithful           INTEGER,                -- whether its code does its patch here, once known
    newest_through     INTEGER NOT NULL DEFAULT 0, -- newest arrival at all positions through this one
    trace_parent       TEXT                    -- W3C traceparent, if the app named one
) STRICT, WITHOUT ROWID;

CREATE INDEX action_records_by_position
    ON action_records (position_clock, position_client_id, position_action_id, id);
CREATE INDEX action_records_by_arrival ON action_records (server_ingest_id);
CREATE INDEX action_records_unsent
    ON action_records (position_clock, position_client_id, position_action_id, id) WHERE server_ingest_id IS NULL;

CREATE TABLE action_modified_rows (
    action_id    BLOB    NOT NULL,
    sequence     INTEGER NOT NULL,
    table_name   TEXT    NOT NULL,
    row_id       TEXT    NOT NULL,
    audience_key TEXT    NOT NULL,
    operation    TEXT    NOT NULL,
    columns      BLOB,                         -- MessagePack map of the columns set; NULL where none are
    PRIMARY KEY (action_id, sequence)
) STRICT, WITHOUT ROWID;

-- What this replica did to rows, newest last: both the capture of the running action and the undo of every applied one.
CREATE TABLE local_undo (
    seq          INTEGER PRIMARY KEY,
    action_id    BLOB NOT NULL,
    table_name   TEXT NOT NULL,
    row_id       TEXT NOT NULL,
    audience_key TEXT NOT NULL CHECK (audience_key <> ''),
    operation    TEXT NOT NULL,
    image        BLOB NOT NULL                 -- MessagePack [before, after] of the columns that changed
) STRICT;
CREATE INDEX local_undo_by_action ON local_undo (action_id, seq);

CREATE TABLE local_fates (
    action_id BLOB PRIMARY KEY,
    clock     INTEGER NOT NULL,                -- when the action was executed
    fate      TEXT NOT NULL,
    reason    TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX local_fates_by_age ON local_fates (clock, action_id);

CREATE TABLE local_quarantined_actions (
    id      BLOB    PRIMARY KEY,
    clock   INTEGER NOT NULL,
    tag     TEXT    NOT NULL,
    args    BLOB    NOT NULL,
    kind    TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    patches BLOB    NOT NULL                   -- what it did when it last ran
) STRICT, WITHOUT ROWID;

CREATE TABLE local_refused_corrections (
    id BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Positions whose effect has tables or columns that are not here.
CREATE TABLE local_unfit (
    position_clock     INTEGER NOT NULL,
    position_client_id BLOB    NOT NULL,
    position_action_id BLOB    NOT NULL,
    again              INTEGER NOT NULL DEFAULT 0, -- something was added to the tracked tables since
    PRIMARY KEY (position_clock, position_client_id, position_action_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX local_unfit_again
    ON local_unfit (position_clock, position_client_id, position_action_id) WHERE again = 1;

-- Accepted rows that cannot be in their table now, since another one holds a value that is UNIQUE there.
CREATE TABLE local_displaced_rows (
    id           TEXT PRIMARY KEY,             -- of table_name and row_id
    audience_key TEXT NOT NULL,
    table_name   TEXT NOT NULL,
    row_id       TEXT NOT NULL,
    columns      BLOB NOT NULL                 -- MessagePack map of the whole row
) STRICT;
