-- What is added to the log, as one parameter for each of its tables: an array of these. An array for each column would be
-- scanned by itself.
--
-- `record` is the place of a record among those that are added together, from 1: it gets the number that was drawn for it.

CREATE TYPE synchrotron.new_record AS (
    record integer,
    client_id uuid,
    user_id text,
    id uuid,
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
    record integer,
    action_id uuid,
    sequence integer,
    table_name text,
    row_id text,
    audience_key text,
    operation text,
    columns bytea,
    position_clock bigint,
    position_client_id uuid,
    position_action_id uuid
);

CREATE TYPE synchrotron.new_audience AS (
    record integer,
    client_id uuid,
    audience_key text,
    action_id uuid
);

-- Up to which record an audience's log goes, and the greatest position in what was added.
CREATE TYPE synchrotron.reached_head AS (
    record integer,
    audience_key text,
    clock bigint,
    client_id uuid,
    action_id uuid
);

-- Adds records to the log: records, rows, audiences, heads, outbox. The heads are locked, and the numbers were drawn under
-- the locks. Heads go up to the last number, floors to the greatest position; UUIDs are compared bytewise here as there.
-- What waits to be published comes back: each audience's slice, from the head before to the one now.
CREATE FUNCTION synchrotron.append(numbers bigint[], records synchrotron.new_record[], effects synchrotron.new_effect[],
        audiences synchrotron.new_audience[], reached synchrotron.reached_head[])
    RETURNS TABLE (id bigint, audience_key text, prev bigint, through bigint)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH
        records AS (INSERT INTO synchrotron.action_records (client_id, user_id, id, server_ingest_id, tag, args, clock,
                row_count, amends, reason, position_clock, position_client_id, position_action_id, slices, content_hash,
                byte_count, trace_parent)
            SELECT n.client_id, n.user_id, n.id, numbers[n.record], n.tag, n.args, n.clock, n.row_count, n.amends, n.reason,
                n.position_clock, n.position_client_id, n.position_action_id, n.slices, n.content_hash, n.byte_count,
                n.trace_parent FROM unnest(records) AS n),
        rows AS (INSERT INTO synchrotron.action_modified_rows (action_id, sequence, table_name, row_id, audience_key,
                operation, columns, server_ingest_id, position_clock, position_client_id, position_action_id)
            SELECT n.action_id, n.sequence, n.table_name, n.row_id, n.audience_key, n.operation, n.columns,
                numbers[n.record], n.position_clock, n.position_client_id, n.position_action_id FROM unnest(effects) AS n),
        audiences AS (INSERT INTO synchrotron.action_audiences (client_id, audience_key, server_ingest_id, action_id)
            SELECT n.client_id, n.audience_key, numbers[n.record], n.action_id FROM unnest(audiences) AS n),
        -- As they are before this statement: it does not see what it changes itself.
        before AS (SELECT h.audience_key, h.head AS prev, numbers[n.record] AS through, n.clock, n.client_id, n.action_id,
                (n.clock, n.client_id, n.action_id) > (h.floor_clock, h.floor_client_id, h.floor_action_id) IS NOT FALSE
                    AS is_greatest
            FROM unnest(reached) AS n JOIN synchrotron.audience_heads h ON h.audience_key = n.audience_key),
        advanced AS (UPDATE synchrotron.audience_heads h SET head = b.through,
                floor_clock = CASE WHEN b.is_greatest THEN b.clock ELSE h.floor_clock END,
                floor_client_id = CASE WHEN b.is_greatest THEN b.client_id ELSE h.floor_client_id END,
                floor_action_id = CASE WHEN b.is_greatest THEN b.action_id ELSE h.floor_action_id END
            FROM before b WHERE h.audience_key = b.audience_key)
        INSERT INTO synchrotron.outbox AS o (audience_key, prev, through)
            SELECT b.audience_key, b.prev, b.through FROM before b
            RETURNING o.id, o.audience_key, o.prev, o.through;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.append(bigint[], synchrotron.new_record[], synchrotron.new_effect[],
    synchrotron.new_audience[], synchrotron.reached_head[]) FROM PUBLIC;

-- An answer that binds, and that the log does not tell.
CREATE TYPE synchrotron.new_answer AS (
    client_id uuid,
    batch_id uuid,
    user_id text,
    content_hash bytea,
    outcome bytea
);
