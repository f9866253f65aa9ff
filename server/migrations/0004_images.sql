-- The server's own undo: rows as they were, so that what arrives late is folded from near its place in the order, also
-- after the effects before it were compacted away, and on rows that are older than the log.
--
-- An image is the row after every effect at or beneath its position; without an audience, the row was absent. The image
-- at position (0, nil, nil) is the row as it was when its first effect in the log came; without one it was absent.
-- Columns are in the forms that snapshots use.
CREATE TABLE synchrotron.row_images (
    table_name text COLLATE "C" NOT NULL,
    row_id text COLLATE "C" NOT NULL,
    position_clock bigint NOT NULL,
    position_client_id uuid NOT NULL,
    position_action_id uuid NOT NULL,
    audience_key text COLLATE "C",
    -- MessagePack map from column to value.
    columns bytea,
    PRIMARY KEY (table_name, row_id, position_clock, position_client_id, position_action_id),
    CHECK ((audience_key IS NULL) = (columns IS NULL))
);
ALTER TABLE synchrotron.row_images ENABLE ROW LEVEL SECURITY;
