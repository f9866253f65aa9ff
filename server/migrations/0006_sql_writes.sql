-- Plain SQL writes to tracked tables: staged by triggers, published by a server after the commit (docs/sql-writes.md).

-- The device that the server's own records name. It belongs to nobody, as no user's id is empty, and is never forgotten.
INSERT INTO synchrotron.clients (client_id, user_id, used_at)
    VALUES ('00000000-0000-0000-0000-000000000000', '', 'infinity')
    ON CONFLICT (client_id) DO UPDATE SET user_id = excluded.user_id, used_at = excluded.used_at;

-- Row changes that are not in the log yet. A row goes when its record is in the log: nothing is counted up, so what a
-- long transaction commits late is neither passed over nor waited for.
CREATE TABLE synchrotron.staged_writes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    table_name text COLLATE "C" NOT NULL,
    row_id text COLLATE "C" NOT NULL,
    -- Where the row was, or is; NULL is for no one, and is never published.
    audience_key text COLLATE "C",
    operation text COLLATE "C" NOT NULL CHECK (operation IN ('INSERT', 'UPDATE', 'DELETE')),
    -- Of an UPDATE, what it changed.
    columns text[] NOT NULL DEFAULT '{}',
    -- Written while the server applied an upload: the log may say the same already.
    echo boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE synchrotron.staged_writes ENABLE ROW LEVEL SECURITY;

-- Stages one row change. Whoever writes needs no right on this schema: it runs as the server's role. Its arguments are the
-- table's name as devices know it (a partition's own name is another) and what the trigger was made for.
CREATE FUNCTION synchrotron.capture_write() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET extra_float_digits = 1
AS $$
DECLARE
    -- The setting says nothing in the session of anybody else.
    is_echo CONSTANT boolean := session_user = current_user
        AND coalesce(current_setting('synchrotron.materializing', true), '') = 'on';
    changed text[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.id::text COLLATE "C" = NEW.id::text COLLATE "C"
            AND OLD.audience_key COLLATE "C" IS NOT DISTINCT FROM NEW.audience_key COLLATE "C"
        THEN
            -- As JSON text: every type has one, and it tells 1.0 from 1.00 and 'a' from 'A' where equality does not.
            BEGIN
                changed := ARRAY(SELECT n.key
                    FROM json_each(row_to_json(NEW)) n JOIN json_each(row_to_json(OLD)) o USING (key)
                    WHERE n.value::text COLLATE "C" <> o.value::text COLLATE "C");
            EXCEPTION WHEN data_exception THEN
                -- The type json stores escapes that Postgres itself cannot read, such as \u0000.
                changed := ARRAY(SELECT a.attname::text FROM pg_attribute a
                    WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped);
            END;
            IF changed <> '{}' OR is_echo THEN
                INSERT INTO synchrotron.staged_writes (table_name, row_id, audience_key, operation, columns, echo)
                    VALUES (TG_ARGV[0], NEW.id::text, NEW.audience_key, TG_OP, changed, is_echo);
            END IF;
            RETURN NULL;
        END IF;
    END IF;
    -- Another id, or another audience, is another row.
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO synchrotron.staged_writes (table_name, row_id, audience_key, operation, echo)
            VALUES (TG_ARGV[0], OLD.id::text, OLD.audience_key, 'DELETE', is_echo);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO synchrotron.staged_writes (table_name, row_id, audience_key, operation, echo)
            VALUES (TG_ARGV[0], NEW.id::text, NEW.audience_key, 'INSERT', is_echo);
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.capture_write() FROM PUBLIC;

-- TRUNCATE removes every row, and that is what devices are told.
CREATE FUNCTION synchrotron.capture_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('INSERT INTO synchrotron.staged_writes (table_name, row_id, audience_key, operation, echo)
        SELECT %L, id::text, audience_key, ''DELETE'', false FROM %I.%I', TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.capture_truncate() FROM PUBLIC;

-- Puts the triggers on a table, unless those that it has are the right ones: a trigger's creation waits for every open
-- transaction that wrote to the table.
--
-- What the server itself writes as an upload says is in the log already and not staged: its condition is asked when the
-- row is written, where pg_trigger_depth() counts the triggers and cascades above. If the table has triggers that may
-- alter a row before it is written, that is not known, and everything is staged.
CREATE FUNCTION synchrotron.install_capture(tracked regclass, known_as text) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    altered CONSTANT boolean := EXISTS (SELECT FROM pg_trigger t
        WHERE (t.tgrelid = tracked OR t.tgrelid IN (SELECT p.relid FROM pg_partition_tree(tracked) p))
            -- FOR EACH ROW and BEFORE; INSERT or UPDATE
            AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0 AND NOT t.tgisinternal AND t.tgenabled <> 'D');
    made_for CONSTANT text := CASE WHEN altered THEN '1 all' ELSE '1 but ' || session_user END;
    arguments CONSTANT bytea := convert_to(known_as, getdatabaseencoding()) || decode('00', 'hex')
        || convert_to(made_for, getdatabaseencoding()) || decode('00', 'hex');
    condition text := '';
BEGIN
    IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = tracked AND t.tgname = 'synchrotron_capture'
               AND t.tgargs = arguments AND t.tgenabled <> 'D')
    THEN
        RETURN;
    END IF;
    IF NOT altered THEN
        condition := format('WHEN (pg_catalog.pg_trigger_depth() > 0 OR session_user <> %L
            OR coalesce(pg_catalog.current_setting(''synchrotron.materializing'', true), '''') <> ''on'')', session_user);
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER synchrotron_capture AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW %s
        EXECUTE FUNCTION synchrotron.capture_write(%L, %L)', tracked, condition, known_as, made_for);
    EXECUTE format('ALTER TABLE %s ENABLE TRIGGER synchrotron_capture', tracked);
    EXECUTE format('CREATE OR REPLACE TRIGGER synchrotron_capture_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT
        EXECUTE FUNCTION synchrotron.capture_truncate(%L)', tracked, known_as);
END
$$;
REVOKE ALL ON FUNCTION synchrotron.install_capture(regclass, text) FROM PUBLIC;

-- Takes the triggers off all other tables, and forgets what they had staged.
CREATE FUNCTION synchrotron.remove_capture(kept regclass[], known_as text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    former regclass;
BEGIN
    FOR former IN SELECT t.tgrelid FROM pg_trigger t WHERE t.tgfoid = 'synchrotron.capture_write()'::regprocedure
        AND t.tgparentid = 0 AND t.tgrelid <> ALL (kept)
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS synchrotron_capture ON %s', former);
        EXECUTE format('DROP TRIGGER IF EXISTS synchrotron_capture_truncate ON %s', former);
    END LOOP;
    DELETE FROM synchrotron.staged_writes WHERE table_name <> ALL (known_as);
END
$$;
REVOKE ALL ON FUNCTION synchrotron.remove_capture(regclass[], text[]) FROM PUBLIC;
