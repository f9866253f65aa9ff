-- Applies runs of effects one after the other, each as its user, with one way there and back for all of them. A group of
-- uploads by many users spends its time on that way otherwise.
--
-- Run n is the statement number chosen[n], as users[n], with the next widths[n] of the arguments, each an array as text.
-- What the statements match comes back, with the number of the run. The transaction goes on as the last of the users.
--
-- Statements are prepared once for each connection: to plan one takes longer than to run it. Which are is remembered in a
-- setting, because to ask Postgres takes as long; a setting is taken back with a transaction, and what is prepared is not.
--
-- What fails is named by its SQLSTATE alone: the statement that Postgres would tell holds values of rows.
CREATE FUNCTION synchrotron.run_script(app_role text, statements text[], users text[], chosen integer[],
        widths integer[], arguments text[])
    RETURNS TABLE (run integer, id text, audience_key text)
    LANGUAGE plpgsql
AS $$
DECLARE
    prepared text := coalesce(current_setting('synchrotron.prepared', true), '');
    names text[];
    acting text;
    start integer := 1;
    literals text;
    set text;
BEGIN
    -- About a hundred names.
    IF length(prepared) > 4500 THEN
        FOR id IN SELECT p.name FROM pg_catalog.pg_prepared_statements p WHERE p.name LIKE 'synchrotron\_%' LOOP
            EXECUTE format('DEALLOCATE %I', id);
        END LOOP;
        prepared := '';
    END IF;
    FOR number IN 1..cardinality(statements) LOOP
        names[number] := 'synchrotron_' || md5(statements[number]);
        IF strpos(prepared, names[number]) = 0 THEN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements p WHERE p.name = names[number]) THEN
                EXECUTE format('PREPARE %I AS %s', names[number], statements[number]);
            END IF;
            prepared := prepared || ' ' || names[number];
            PERFORM set_config('synchrotron.prepared', prepared, false);
        END IF;
    END LOOP;
    -- As assignments, which Postgres evaluates without running a query.
    set := set_config('role', app_role, true);
    FOR number IN 1..cardinality(users) LOOP
        IF users[number] IS DISTINCT FROM acting THEN
            acting := users[number];
            set := set_config('synchrotron.user_id', acting, true);
            set := set_config('request.jwt.claim.sub', acting, true);
            set := set_config('request.jwt.claims', json_build_object('sub', acting, 'role', app_role)::text, true);
        END IF;
        literals := '';
        FOR place IN start..start + widths[number] - 1 LOOP
            literals := literals || format(CASE WHEN place = start THEN '%L' ELSE ', %L' END, arguments[place]);
        END LOOP;
        start := start + widths[number];
        run := number;
        FOR id, audience_key IN EXECUTE format('EXECUTE %I(%s)', names[chosen[number]], literals) LOOP
            RETURN NEXT;
        END LOOP;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = 'an effect could not be applied';
END
$$;
REVOKE ALL ON FUNCTION synchrotron.run_script(text, text[], text[], integer[], integer[], text[]) FROM PUBLIC;
