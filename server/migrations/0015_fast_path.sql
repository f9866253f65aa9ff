-- Takes an upload that is alone, and with which all is as it mostly is, in one statement and a transaction of its own: judged,
-- added to the log and materialized with one way there and back, under locks that wait for no way at all.
--
-- It asks what synchrotron.open_uploads finds, in that order: the device is locked and the user's audiences are read; the heads
-- are locked and numbers drawn; what the log says is read under the locks. But it asks only whether all is plain. It is not,
-- and nothing is left, if the device is new, or another's, or was not used for a day; if an audience is not the user's;
-- if the epoch is another; if the batch was answered, or one of its `ids` is known; if something is too old, or beneath another
-- effect of its row; if the device lacks another's record; or if the log does not know one of the `begun` rows, which are named
-- by their places in `on_rows`, from 1: they were there before it, or are not there.
--
-- What comes back, by `said`; nothing, if it was not taken:
--
-- taken     its records' `numbers`
-- slice     one that waits to be published: `id` in the outbox, `audience_key`, `prev`, `through`
-- images    alone: it is not taken because its number is one of those that leave images of rows, and the log knows rows of it,
--           or it `repeats` some
--
-- It fails, and nothing is left, if its effects do not match just the rows that are named, each in its audience.
--
-- It has no search_path of its own: the app's policies and triggers run with that of the session.
CREATE FUNCTION synchrotron.take_upload(lock_within text, uploader text, client uuid, batch uuid, of_epoch uuid,
        gates_visible boolean, basis text, ids uuid[], least_clock bigint, touched text[],
        in_audiences synchrotron.place_in_audience[], on_rows synchrotron.place_on_row[], begun bigint[],
        records synchrotron.new_record[], effects synchrotron.new_effect[], audiences synchrotron.new_audience[],
        reached synchrotron.reached_head[], app_role text, repeats boolean, image_every bigint,
        statements text[], chosen integer[], widths integer[], arguments text[],
        matched_runs integer[], matched_ids text[], matched_audiences text[])
    RETURNS TABLE (said text, numbers bigint[], id bigint, audience_key text, prev bigint, through bigint)
    LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    set text;
    cursors jsonb := basis;
    reached_by_device bigint;
    seen text[];
    locked record;
    lacking boolean;
    plain boolean;
    known bigint[];
    leaves_images boolean := false;
BEGIN
    set := set_config('lock_timeout', lock_within, true);
    -- Tells the triggers on tracked tables that what is written is in the log.
    set := set_config('synchrotron.materializing', 'on', true);

    SELECT ARRAY(SELECT v.audience_key::text COLLATE "C" FROM synchrotron.user_audiences v
            WHERE v.user_id = uploader AND octet_length(v.audience_key::text) BETWEEN 1 AND 512)
        INTO seen FROM synchrotron.clients c
        WHERE c.client_id = client AND c.user_id = uploader AND c.used_at > now() - interval '1 day'
        FOR NO KEY UPDATE OF c;
    IF NOT coalesce(touched <@ seen, false) THEN
        RETURN;
    END IF;
    locked := synchrotron.lock_heads(touched, CASE WHEN gates_visible THEN seen END, cardinality(ids));

    FOR place IN 1..cardinality(locked.keys) LOOP
        reached_by_device := coalesce((cursors ->> locked.keys[place])::bigint, 0);
        IF reached_by_device < locked.heads[place] THEN
            SELECT reached_by_device < synchrotron.retained_for(h, client)
                OR EXISTS (SELECT FROM synchrotron.action_audiences a WHERE a.audience_key = h.audience_key
                    AND a.server_ingest_id > reached_by_device AND a.client_id <> client)
                INTO lacking FROM synchrotron.audience_heads h WHERE h.audience_key = locked.keys[place];
            IF lacking IS NOT FALSE THEN
                RETURN;
            END IF;
        END IF;
    END LOOP;
    FOR place IN 1..cardinality(ids) LOOP
        leaves_images := leaves_images OR locked.drawn[place] % image_every = 0;
    END LOOP;
    SELECT m.epoch = of_epoch AND m.forgotten_clock <= least_clock
            AND NOT EXISTS (SELECT FROM synchrotron.upload_outcomes o WHERE o.client_id = client AND o.batch_id = batch)
            AND NOT EXISTS (SELECT FROM synchrotron.action_records r WHERE r.id = ANY (ids))
            AND NOT EXISTS (SELECT FROM synchrotron.compacted_records r WHERE r.id = ANY (ids))
            AND NOT EXISTS (SELECT FROM unnest(in_audiences) AS u
                JOIN synchrotron.audience_heads h ON h.audience_key = u.audience_key AND
                (u.clock, u.client_id, u.action_id) <= (h.compacted_clock, h.compacted_client_id, h.compacted_action_id))
            AND NOT EXISTS (SELECT FROM unnest(on_rows) AS u
                JOIN synchrotron.row_images i ON i.table_name = u.table_name AND i.row_id = u.row_id AND i.final AND
                (u.clock, u.client_id, u.action_id) <= (i.position_clock, i.position_client_id, i.position_action_id))
            AND NOT EXISTS (SELECT FROM unnest(on_rows) AS u
                JOIN synchrotron.action_modified_rows r ON r.table_name = u.table_name AND r.row_id = u.row_id AND
                (r.position_clock, r.position_client_id, r.position_action_id) > (u.clock, u.client_id, u.action_id))
        INTO plain FROM synchrotron.server_meta m;
    IF plain IS NOT TRUE THEN
        RETURN;
    END IF;
    IF begun <> '{}' OR leaves_images THEN
        known := ARRAY(SELECT u.place FROM unnest(on_rows) WITH ORDINALITY AS
            u(upload, table_name, row_id, clock, client_id, action_id, place)
            WHERE EXISTS (SELECT FROM synchrotron.action_modified_rows r
                WHERE r.table_name = u.table_name AND r.row_id = u.row_id));
        IF NOT begun <@ known THEN
            RETURN;
        END IF;
        IF leaves_images AND (repeats OR known <> '{}') THEN
            said := 'images';
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;

    said := 'taken';
    numbers := locked.drawn;
    RETURN NEXT;
    said := 'slice';
    numbers := NULL;
    FOR id, audience_key, prev, through IN
        SELECT a.id, a.audience_key, a.prev, a.through
        FROM synchrotron.append(locked.drawn, records, effects, audiences, reached) AS a
    LOOP
        RETURN NEXT;
    END LOOP;
    IF chosen <> '{}' AND EXISTS (
        SELECT m.run, m.id, m.audience FROM unnest(matched_runs, matched_ids, matched_audiences) AS m(run, id, audience)
        EXCEPT SELECT s.run, s.id, s.audience_key FROM synchrotron.run_script(app_role, statements,
            array_fill(uploader, ARRAY[cardinality(chosen)]), chosen, widths, arguments) AS s)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'an effect matched no row of its audience';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.take_upload(text, text, uuid, uuid, uuid, boolean, text, uuid[], bigint, text[],
    synchrotron.place_in_audience[], synchrotron.place_on_row[], bigint[], synchrotron.new_record[],
    synchrotron.new_effect[], synchrotron.new_audience[], synchrotron.reached_head[], text, boolean, bigint,
    text[], integer[], integer[], text[], integer[], text[], text[]) FROM PUBLIC;
