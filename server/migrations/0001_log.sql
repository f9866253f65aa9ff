-- The log: what happened, in which order it arrived, and who may see it.
-- Text that orders or keys anything compares bytewise (COLLATE "C"), as it does on every device.

CREATE TABLE synchrotron.server_meta (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The id of this history; a change voids every cursor.
    epoch uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO synchrotron.server_meta DEFAULT VALUES;

-- A device belongs to the first user that used it.
CREATE TABLE synchrotron.clients (
    client_id uuid PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE synchrotron.server_ingest_ids;

-- One row per audience: its newest server_ingest_id, and the lock that makes ids of one audience visible in id order.
CREATE TABLE synchrotron.audience_heads (
    audience_key text COLLATE "C" PRIMARY KEY,
    head bigint NOT NULL
);

CREATE TABLE synchrotron.action_records (
    id uuid PRIMARY KEY,
    server_ingest_id bigint NOT NULL UNIQUE,
    -- NULL for a correction.
    tag text COLLATE "C",
    args bytea,
    client_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    clock bigint NOT NULL,
    -- How many rows it has in all audiences together.
    row_count integer NOT NULL,
    -- The action that a correction amends, and the rule's words where replay failed.
    amends uuid,
    reason text,
    -- Where it takes effect: an action at its own replay key, a correction at that of the action it amends.
    position_clock bigint NOT NULL,
    position_client_id uuid NOT NULL,
    position_action_id uuid NOT NULL,
    -- MessagePack list of one slice tag for each of its audiences, sorted.
    slices bytea NOT NULL,
    -- What a repeated upload of this id must match.
    content_hash bytea NOT NULL,
    -- Encoded size, by which pages are bounded.
    byte_count integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((tag IS NULL) = (args IS NULL)),
    CHECK ((tag IS NULL) = (amends IS NOT NULL))
);

CREATE TABLE synchrotron.action_modified_rows (
    action_id uuid NOT NULL REFERENCES synchrotron.action_records (id) ON DELETE CASCADE,
    sequence integer NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    row_id text COLLATE "C" NOT NULL,
    audience_key text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL CHECK (operation IN ('INSERT', 'UPDATE', 'DELETE', 'NOTHING')),
    -- MessagePack map from column to value; empty for operations that set none.
    columns bytea NOT NULL,
    server_ingest_id bigint NOT NULL,
    position_clock bigint NOT NULL,
    position_client_id uuid NOT NULL,
    position_action_id uuid NOT NULL,
    PRIMARY KEY (action_id, sequence)
);

-- A row's history in replay order: what a late arrival is folded from.
CREATE INDEX action_modified_rows_history ON synchrotron.action_modified_rows
    (table_name, row_id, position_clock, position_client_id, position_action_id, server_ingest_id, sequence);
CREATE INDEX action_modified_rows_arrival ON synchrotron.action_modified_rows (audience_key, server_ingest_id);

-- Which audiences a record has rows in; client_id is that of the record, so that the gate reads nothing else.
CREATE TABLE synchrotron.action_audiences (
    audience_key text COLLATE "C" NOT NULL,
    server_ingest_id bigint NOT NULL,
    action_id uuid NOT NULL REFERENCES synchrotron.action_records (id) ON DELETE CASCADE,
    client_id uuid NOT NULL,
    PRIMARY KEY (audience_key, server_ingest_id)
);
CREATE INDEX action_audiences_of_record ON synchrotron.action_audiences (server_ingest_id);

-- Slices to publish: one per commit and touched audience.
CREATE TABLE synchrotron.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    audience_key text COLLATE "C" NOT NULL,
    prev bigint NOT NULL,
    through bigint NOT NULL
);

-- The answers given that the log does not tell, so that a repeated batch gets the same one.
CREATE TABLE synchrotron.upload_outcomes (
    client_id uuid NOT NULL,
    batch_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    content_hash bytea NOT NULL,
    outcome bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client_id, batch_id)
);
