-- What uploads need before they are judged, with one way there and back: each hop of its own would be one under locks.
--
-- Each statement in here sees what was committed before it began. So what is read after a lock was taken is what those who
-- held the lock before have left: the order below is part of the promise.

-- Binds devices to the first users that use them; tells whom each belongs to, and holds their rows until the end of the
-- transaction, so that one device has one upload at a time. Rows are locked in the order of their ids, before any head: so
-- no two transactions wait for each other. That a device is in use is noted once a day: the others are forgotten some time.
CREATE FUNCTION synchrotron.bind_clients(clients uuid[], users text[], OUT bound uuid[], OUT owners text[])
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    due uuid[];
BEGIN
    LOOP
        SELECT array_agg(l.client_id), array_agg(l.user_id),
            array_agg(l.client_id) FILTER (WHERE l.used_at < now() - interval '1 day') INTO bound, owners, due
        FROM (SELECT c.client_id, c.user_id, c.used_at FROM synchrotron.clients c
              WHERE c.client_id = ANY (clients) ORDER BY c.client_id FOR NO KEY UPDATE) l;
        EXIT WHEN cardinality(bound) = cardinality(clients);
        INSERT INTO synchrotron.clients (client_id, user_id) SELECT * FROM unnest(clients, users) ON CONFLICT DO NOTHING;
    END LOOP;
    IF due IS NOT NULL THEN
        UPDATE synchrotron.clients c SET used_at = now() WHERE c.client_id = ANY (due);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.bind_clients(uuid[], text[]) FROM PUBLIC;

-- The least position at which an upload touches an audience, and a row. Many come as one parameter: an array of these.
CREATE TYPE synchrotron.place_in_audience AS (
    place bigint,
    audience_key text,
    clock bigint,
    client_id uuid,
    action_id uuid
);
CREATE TYPE synchrotron.place_on_row AS (
    place bigint,
    table_name text,
    row_id text,
    clock bigint,
    client_id uuid,
    action_id uuid
);

-- Opens uploads, which are named by their places, from 0. What comes back, by `thing`:
--
-- client    who owns a device: `id`, `key`
-- audience  one that an upload's user is in, by the app's view: `place`, `key`
-- head      of an audience that is locked now: `key`, `number`
-- drawn     the numbers that were drawn under the locks, in order: `numbers`
-- epoch     the server's history: `id`
-- answer    what an upload was answered before: `place`, `hash` of its content, `outcome`
-- record    one that is, or was, in the log: `id`, `number`, `hash`
-- age       the clock that an upload must be above: `place`, `number`
-- unseen    an audience in which the log has what an upload's device lacks: `place`, `key`
-- newest    the newest position on a row, by its place among the rows: `number`, `client_id`, `id`
--
-- `bases` are the cursors that the uploads are based on, each a JSON object. With `gates_visible`, a device must have seen
-- everything of every audience that its user is in; else, of those that its cursors name. `touched` are the audiences that
-- are written, `wanted` is how many numbers are drawn. Of each upload, the rest gives the least position at which it touches
-- an audience, a row, and anything, and the actions that it amends.
--
-- Statements are few, since to begin one takes as long as what it finds for an upload that is alone.
CREATE FUNCTION synchrotron.open_uploads(lock_within text, clients uuid[], users text[], batches uuid[], bases text[],
        gates_visible boolean, ids uuid[], touched text[], wanted bigint,
        in_audiences synchrotron.place_in_audience[], on_rows synchrotron.place_on_row[],
        upload_places bigint[], upload_clocks bigint[], amended_places bigint[], amended_ids uuid[])
    RETURNS TABLE (thing text, place bigint, key text, id uuid, client_id uuid, number bigint, hash bytea, outcome bytea,
        numbers bigint[])
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    set text;
    owned record;
    seen_places bigint[];
    seen_keys text[];
    seen_cursors bigint[];
    locked record;
    new_places bigint[];
    new_keys text[];
    new_cursors bigint[];
BEGIN
    set := set_config('lock_timeout', lock_within, true);
    -- Tells the triggers on tracked tables that what is written is in the log.
    set := set_config('synchrotron.materializing', 'on', true);

    owned := synchrotron.bind_clients(clients, users);

    -- By the app's view, as synchrotron.audiences_of tells them, for all users at once. Of what is no audience there is no
    -- head.
    SELECT array_agg(u.place - 1), array_agg(a.key), array_agg((u.basis ->> a.key)::bigint)
        INTO seen_places, seen_keys, seen_cursors
        FROM unnest(users, bases::jsonb[]) WITH ORDINALITY AS u(user_id, basis, place)
        CROSS JOIN LATERAL (SELECT DISTINCT v.audience_key::text COLLATE "C" AS key
            FROM synchrotron.user_audiences v WHERE v.user_id = u.user_id
            AND octet_length(v.audience_key::text) BETWEEN 1 AND 512) AS a;

    locked := synchrotron.lock_heads(touched, CASE WHEN gates_visible THEN seen_keys END, wanted);

    -- Whoever had a head that was waited for may have founded its audience, and for this user, too.
    SELECT array_agg(n.place), array_agg(n.key), array_agg((bases[n.place + 1]::jsonb ->> n.key)::bigint)
        INTO new_places, new_keys, new_cursors
        FROM (SELECT t.place, t.audience_key AS key FROM unnest(in_audiences) AS t
            EXCEPT SELECT s.place, s.key FROM unnest(seen_places, seen_keys) AS s(place, key)) AS n
        WHERE EXISTS (SELECT FROM synchrotron.user_audiences v
            WHERE v.user_id = users[n.place + 1] AND v.audience_key = n.key);
    seen_places := seen_places || new_places;
    seen_keys := seen_keys || new_keys;
    seen_cursors := seen_cursors || new_cursors;

    RETURN QUERY
        SELECT 'client', NULL::bigint, c.user_id, c.client_id, NULL::uuid, NULL::bigint, NULL::bytea, NULL::bytea,
            NULL::bigint[] FROM unnest(owned.bound, owned.owners) AS c(client_id, user_id)
        UNION ALL SELECT 'audience', s.place, s.key, NULL, NULL, NULL, NULL, NULL, NULL
            FROM unnest(seen_places, seen_keys) AS s(place, key)
        UNION ALL SELECT 'head', NULL, h.key, NULL, NULL, h.head, NULL, NULL, NULL
            FROM unnest(locked.keys, locked.heads) AS h(key, head)
        UNION ALL SELECT 'drawn', NULL, NULL, NULL, NULL, NULL, NULL, NULL, locked.drawn
        UNION ALL SELECT 'epoch', NULL, NULL, m.epoch, NULL, NULL, NULL, NULL, NULL FROM synchrotron.server_meta m
        UNION ALL SELECT 'answer', u.place - 1, NULL, NULL, NULL, NULL, o.content_hash, o.outcome, NULL
            FROM unnest(clients, batches) WITH ORDINALITY AS u(client_id, batch_id, place)
            JOIN synchrotron.upload_outcomes o ON o.client_id = u.client_id AND o.batch_id = u.batch_id
        UNION ALL SELECT 'record', NULL, NULL, r.id, NULL, r.server_ingest_id, r.content_hash, NULL, NULL
            FROM synchrotron.action_records r WHERE r.id = ANY (ids)
        UNION ALL SELECT 'record', NULL, NULL, r.id, NULL, r.server_ingest_id, r.content_hash, NULL, NULL
            FROM synchrotron.compacted_records r WHERE r.id = ANY (ids)
        UNION ALL SELECT 'age', floors.place, NULL, NULL, NULL, max(floors.clock), NULL, NULL, NULL FROM (
            SELECT u.place, h.compacted_clock AS clock
                FROM unnest(in_audiences) AS u
                JOIN synchrotron.audience_heads h ON h.audience_key = u.audience_key AND
                (u.clock, u.client_id, u.action_id) <= (h.compacted_clock, h.compacted_client_id, h.compacted_action_id)
            UNION ALL SELECT u.place, i.position_clock
                FROM unnest(on_rows) AS u
                JOIN synchrotron.row_images i ON i.table_name = u.table_name AND i.row_id = u.row_id AND i.final AND
                (u.clock, u.client_id, u.action_id) <= (i.position_clock, i.position_client_id, i.position_action_id)
            UNION ALL SELECT u.place, c.position_clock FROM unnest(amended_places, amended_ids) AS u(place, id)
                JOIN synchrotron.compacted_records c ON c.id = u.id
            UNION ALL SELECT u.place, m.forgotten_clock FROM unnest(upload_places, upload_clocks) AS u(place, clock)
                JOIN synchrotron.server_meta m ON u.clock < m.forgotten_clock) AS floors GROUP BY floors.place
        UNION ALL SELECT 'unseen', v.place, v.audience_key, NULL, NULL, NULL, NULL, NULL, NULL
            FROM (SELECT s.place, s.audience_key, clients[s.place + 1] AS client_id,
                    CASE WHEN gates_visible THEN coalesce(s.cursor, 0) ELSE s.cursor END AS cursor
                FROM unnest(seen_places, seen_keys, seen_cursors) AS s(place, audience_key, cursor)) AS v
            JOIN synchrotron.audience_heads h ON h.audience_key = v.audience_key AND v.cursor < h.head
            WHERE v.cursor < synchrotron.retained_for(h, v.client_id)
                OR EXISTS (SELECT FROM synchrotron.action_audiences a WHERE a.audience_key = v.audience_key
                    AND a.server_ingest_id > v.cursor AND a.client_id <> v.client_id)
        UNION ALL SELECT 'newest', w.place - 1, NULL, n.position_action_id, n.position_client_id, n.position_clock,
            NULL, NULL, NULL
            FROM unnest(on_rows) WITH ORDINALITY AS w(upload, table_name, row_id, clock, client_id, action_id, place)
            CROSS JOIN LATERAL
            (SELECT m.position_clock, m.position_client_id, m.position_action_id
            FROM synchrotron.action_modified_rows m WHERE m.table_name = w.table_name AND m.row_id = w.row_id
            ORDER BY m.position_clock DESC, m.position_client_id DESC, m.position_action_id DESC LIMIT 1) n;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.open_uploads(text, uuid[], text[], uuid[], text[], boolean, uuid[], text[], bigint,
    synchrotron.place_in_audience[], synchrotron.place_on_row[], bigint[], bigint[], bigint[], uuid[]) FROM PUBLIC;
