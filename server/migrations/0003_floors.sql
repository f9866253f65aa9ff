-- Each audience's floor: the greatest replay position of any record with rows in it. It travels with a snapshot: nothing
-- beneath it can be replayed on the snapshot's rows. Written with the head, under the head's lock.
ALTER TABLE synchrotron.audience_heads
    ADD floor_clock bigint,
    ADD floor_client_id uuid,
    ADD floor_action_id uuid,
    ADD CHECK (num_nulls(floor_clock, floor_client_id, floor_action_id) IN (0, 3));

UPDATE synchrotron.audience_heads h
SET floor_clock = f.position_clock, floor_client_id = f.position_client_id, floor_action_id = f.position_action_id
FROM (SELECT DISTINCT ON (a.audience_key)
          a.audience_key, r.position_clock, r.position_client_id, r.position_action_id
      FROM synchrotron.action_audiences a JOIN synchrotron.action_records r USING (server_ingest_id)
      ORDER BY a.audience_key, r.position_clock DESC, r.position_client_id DESC, r.position_action_id DESC) f
WHERE f.audience_key = h.audience_key;
