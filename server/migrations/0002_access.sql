-- Who may read the log, and the one way to lock heads.
-- Only the server's own role, which owns these tables, writes them and reads past these policies.

-- The role that users act as. Roles belong to the cluster: another database may be making it at this moment.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'synchrotron_user') THEN
        CREATE ROLE synchrotron_user NOLOGIN NOINHERIT NOBYPASSRLS;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- A user's audiences, by the app's view. The view may come later than this function.
CREATE FUNCTION synchrotron.audiences_of(wanted text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 20
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT DISTINCT a.audience_key::text COLLATE "C"
        FROM synchrotron.user_audiences a WHERE a.user_id = wanted;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.audiences_of(text) FROM PUBLIC;

-- The user that the present transaction acts for; for the app's policies too.
CREATE FUNCTION synchrotron.current_user_id() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT nullif(current_setting('synchrotron.user_id', true), '') $$;

-- The audiences of that user.
CREATE FUNCTION synchrotron.my_audiences() RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 20
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT synchrotron.audiences_of(synchrotron.current_user_id());
END
$$;

ALTER TABLE synchrotron.server_meta ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.clients ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.upload_outcomes ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.audience_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.action_audiences ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.action_modified_rows ENABLE ROW LEVEL SECURITY;
ALTER TABLE synchrotron.action_records ENABLE ROW LEVEL SECURITY;

CREATE POLICY mine ON synchrotron.audience_heads FOR SELECT
    USING (audience_key IN (SELECT synchrotron.my_audiences()));
CREATE POLICY mine ON synchrotron.action_audiences FOR SELECT
    USING (audience_key IN (SELECT synchrotron.my_audiences()));
CREATE POLICY mine ON synchrotron.action_modified_rows FOR SELECT
    USING (audience_key IN (SELECT synchrotron.my_audiences()));
-- A record is visible iff one of its rows is: the inner table shows only the user's own audiences.
CREATE POLICY mine ON synchrotron.action_records FOR SELECT
    USING (EXISTS (SELECT FROM synchrotron.action_audiences a
                   WHERE a.server_ingest_id = action_records.server_ingest_id));

-- Lets a role act for users: it may read what the policies above show, and nothing else. Idempotent.
CREATE FUNCTION synchrotron.admit_role(app_role text) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA synchrotron TO %I', app_role);
    EXECUTE format('GRANT SELECT ON synchrotron.action_records, synchrotron.action_modified_rows,
        synchrotron.action_audiences, synchrotron.audience_heads TO %I', app_role);
    IF NOT pg_has_role(current_user, app_role, 'MEMBER') THEN
        EXECUTE format('GRANT %I TO %I', app_role, current_user);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION synchrotron.admit_role(text) FROM PUBLIC;

-- Locks the heads of an upload's audiences, making those that are missing, and returns them.
--
-- Touched audiences are locked FOR UPDATE: their ids are assigned under this lock, so they become visible in id order.
-- Audiences that the uploader merely sees are locked FOR SHARE: an action that reads p and writes q must not pass the
-- gate while a writer of p, whose records it has not seen, is about to commit. Every upload locks in byte order of the
-- keys, each key once and in its final mode, so two uploads cannot wait for each other.
CREATE FUNCTION synchrotron.lock_heads(touched text[], visible text[])
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
END
$$;
REVOKE ALL ON FUNCTION synchrotron.lock_heads(text[], text[]) FROM PUBLIC;
