-- Compaction: what is told of records that are no longer in the log, and the indexes that find what is old.

-- Written under the head's lock.
ALTER TABLE synchrotron.audience_heads
    -- The greatest number of a compacted record with rows in the audience, the device that wrote it, and the greatest
    -- number of one that another device wrote: a device never needs its own records again.
    ADD retained bigint NOT NULL DEFAULT 0,
    ADD retained_client_id uuid,
    ADD retained_by_others bigint NOT NULL DEFAULT 0,
    -- The greatest replay position of these records: nothing at or beneath it is taken any more.
    ADD compacted_clock bigint,
    ADD compacted_client_id uuid,
    ADD compacted_action_id uuid,
    ADD CHECK (retained_by_others <= retained),
    ADD CHECK (num_nulls(compacted_clock, compacted_client_id, compacted_action_id) IN (0, 3));

-- Through which number the records are gone that a device may still lack.
CREATE FUNCTION synchrotron.retained_for(audience synchrotron.audience_heads, device uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN audience.retained_client_id = device THEN audience.retained_by_others ELSE audience.retained END $$;

-- Records that are gone, for much longer than their content is kept: whoever missed the answer sends them again.
CREATE TABLE synchrotron.compacted_records (
    id uuid PRIMARY KEY,
    server_ingest_id bigint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    content_hash bytea NOT NULL,
    position_clock bigint NOT NULL,
    compacted_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE synchrotron.compacted_records ENABLE ROW LEVEL SECURITY;
CREATE INDEX compacted_records_age ON synchrotron.compacted_records (compacted_at);

-- Above the clocks of all ids that are forgotten: nothing beneath is taken any more, for it may have been before.
ALTER TABLE synchrotron.server_meta ADD forgotten_clock bigint NOT NULL DEFAULT 0;

-- Left by a compaction: nothing at or beneath it is taken any more.
ALTER TABLE synchrotron.row_images ADD final boolean NOT NULL DEFAULT false;
CREATE INDEX row_images_absent ON synchrotron.row_images (position_clock) WHERE columns IS NULL AND final;

-- A record goes together with the corrections that amend it.
CREATE INDEX action_records_amendments ON synchrotron.action_records (amends, server_ingest_id) WHERE amends IS NOT NULL;

-- The number is what action_audiences has an index on.
ALTER TABLE synchrotron.action_audiences DROP CONSTRAINT action_audiences_action_id_fkey;
ALTER TABLE synchrotron.action_audiences ADD CONSTRAINT action_audiences_record_fkey
    FOREIGN KEY (server_ingest_id) REFERENCES synchrotron.action_records (server_ingest_id) ON DELETE CASCADE;

CREATE INDEX upload_outcomes_age ON synchrotron.upload_outcomes (created_at);
ALTER TABLE synchrotron.outbox ADD created_at timestamptz NOT NULL DEFAULT now();
-- Renewed at most once a day.
ALTER TABLE synchrotron.clients ADD used_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX clients_age ON synchrotron.clients (used_at);

-- Begins another history with what is there: after a backup was restored, devices know things that the log does not.
-- Every cursor is void; numbers go on above all that were ever given here; slices of the history that ends are dropped.
CREATE FUNCTION synchrotron.begin_epoch(OUT ended uuid, OUT begun uuid)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT epoch INTO ended FROM synchrotron.server_meta FOR UPDATE;
    begun := gen_random_uuid();
    UPDATE synchrotron.server_meta SET epoch = begun;
    DELETE FROM synchrotron.outbox;
    PERFORM setval('synchrotron.server_ingest_ids', greatest(nextval('synchrotron.server_ingest_ids'),
        (SELECT max(head) FROM synchrotron.audience_heads)));
END
$$;
REVOKE ALL ON FUNCTION synchrotron.begin_epoch() FROM PUBLIC;
