-- One tracked table, under Row Level Security as the documentation shows it, and one for its plain twin.
CREATE TABLE members (user_id text NOT NULL, audience_key text NOT NULL, PRIMARY KEY (user_id, audience_key));
CREATE TABLE items (id text PRIMARY KEY, title text NOT NULL, count integer NOT NULL, audience_key text NOT NULL);
CREATE INDEX ON items (audience_key);
CREATE TABLE plain_items (LIKE items INCLUDING ALL);

CREATE SCHEMA synchrotron;
CREATE VIEW synchrotron.user_audiences AS SELECT user_id, audience_key FROM members;
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON items USING (audience_key IN (SELECT audience_key FROM synchrotron.user_audiences
    WHERE user_id = (SELECT current_setting('synchrotron.user_id', true))));

DO $$ BEGIN CREATE ROLE synchrotron_user NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
GRANT USAGE ON SCHEMA synchrotron TO synchrotron_user;
GRANT SELECT ON synchrotron.user_audiences TO synchrotron_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON items TO synchrotron_user;
