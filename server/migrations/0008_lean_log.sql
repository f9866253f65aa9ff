-- The log's tables are written together in one statement, and deleted together by compaction; only the server's role writes
-- them. Foreign keys between them would ask for each row once more what that statement has just made so.
ALTER TABLE synchrotron.action_modified_rows DROP CONSTRAINT action_modified_rows_action_id_fkey;
ALTER TABLE synchrotron.action_audiences DROP CONSTRAINT action_audiences_record_fkey;

-- Nothing reads rows by arrival: pages find records by their audiences.
DROP INDEX synchrotron.action_modified_rows_arrival;

-- As before, and after the last lock it draws so many server_ingest_ids, in order, as rows without an audience: the order of
-- the two is what makes ids visible in id order, so they are of one function.
DROP FUNCTION synchrotron.lock_heads(text[], text[]);
CREATE FUNCTION synchrotron.lock_heads(touched text[], visible text[], numbers bigint DEFAULT 0)
    RETURNS TABLE (audience_key text, head bigint)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT w.key, bool_or(w.written) AS written
        FROM (SELECT unnest(touched) AS key, true AS written
              UNION ALL SELECT unnest(visible), false) w
        GROUP BY w.key ORDER BY w.key COLLATE "C"
    LOOP
        LOOP
            IF wanted.written THEN
                SELECT h.head INTO lock_heads.head FROM synchrotron.audience_heads h
                    WHERE h.audience_key = wanted.key FOR UPDATE;
            ELSE
                SELECT h.head INTO lock_heads.head FROM synchrotron.audience_heads h
                    WHERE h.audience_key = wanted.key FOR SHARE;
            END IF;
            EXIT WHEN FOUND;
            INSERT INTO synchrotron.audience_heads AS h VALUES (wanted.key, 0) ON CONFLICT DO NOTHING;
        END LOOP;
        lock_heads.audience_key := wanted.key;
        RETURN NEXT;
    END LOOP;
    lock_heads.audience_key := NULL;
    FOR drawn IN 1..numbers LOOP
        lock_heads.head := nextval('synchrotron.server_ingest_ids');
        RETURN NEXT;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.lock_heads(text[], text[], bigint) FROM PUBLIC;
