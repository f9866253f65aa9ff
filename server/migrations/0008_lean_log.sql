-- The log's tables are written together in one statement, and deleted together by compaction; only the server's role writes
-- them. Foreign keys between them would ask for each row once more what that statement has just made so.
ALTER TABLE synchrotron.action_modified_rows DROP CONSTRAINT action_modified_rows_action_id_fkey;
ALTER TABLE synchrotron.action_audiences DROP CONSTRAINT action_audiences_record_fkey;

-- Nothing reads rows by arrival: pages find records by their audiences.
DROP INDEX synchrotron.action_modified_rows_arrival;

-- As before, and after the last lock it draws so many server_ingest_ids, in order: the order of the two is what makes ids
-- visible in id order, so they are of one function. What it locked comes back, each head beside its key.
DROP FUNCTION synchrotron.lock_heads(text[], text[]);
CREATE FUNCTION synchrotron.lock_heads(touched text[], visible text[], numbers bigint DEFAULT 0,
        OUT keys text[], OUT heads bigint[], OUT drawn bigint[])
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    locked bigint;
BEGIN
    keys := ARRAY(SELECT DISTINCT k COLLATE "C" FROM unnest(touched || visible) AS k ORDER BY 1);
    FOR place IN 1..cardinality(keys) LOOP
        LOOP
            IF keys[place] = ANY (touched) THEN
                SELECT h.head INTO locked FROM synchrotron.audience_heads h
                    WHERE h.audience_key = keys[place] FOR UPDATE;
            ELSE
                SELECT h.head INTO locked FROM synchrotron.audience_heads h
                    WHERE h.audience_key = keys[place] FOR SHARE;
            END IF;
            EXIT WHEN FOUND;
            INSERT INTO synchrotron.audience_heads AS h VALUES (keys[place], 0) ON CONFLICT DO NOTHING;
        END LOOP;
        heads[place] := locked;
    END LOOP;
    FOR place IN 1..numbers LOOP
        drawn[place] := nextval('synchrotron.server_ingest_ids');
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.lock_heads(text[], text[], bigint) FROM PUBLIC;
