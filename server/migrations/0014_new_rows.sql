-- Rows that are added to the log, as one parameter of a statement each: an array of these. An array for each column would be
-- scanned by itself.

CREATE TYPE synchrotron.new_record AS (
    client_id uuid,
    user_id text,
    id uuid,
    server_ingest_id bigint,
    tag text,
    args bytea,
    clock bigint,
    row_count integer,
    amends uuid,
    reason text,
    position_clock bigint,
    position_client_id uuid,
    position_action_id uuid,
    slices bytea,
    content_hash bytea,
    byte_count integer,
    trace_parent text
);

CREATE TYPE synchrotron.new_effect AS (
    action_id uuid,
    sequence integer,
    table_name text,
    row_id text,
    audience_key text,
    operation text,
    columns bytea,
    server_ingest_id bigint,
    position_clock bigint,
    position_client_id uuid,
    position_action_id uuid
);

CREATE TYPE synchrotron.new_audience AS (
    client_id uuid,
    audience_key text,
    server_ingest_id bigint,
    action_id uuid
);

-- Up to where an audience's log goes, and the greatest position in what was added.
CREATE TYPE synchrotron.reached_head AS (
    audience_key text,
    prev bigint,
    through bigint,
    clock bigint,
    client_id uuid,
    action_id uuid
);

CREATE TYPE synchrotron.new_answer AS (
    client_id uuid,
    batch_id uuid,
    user_id text,
    content_hash bytea,
    outcome bytea
);
