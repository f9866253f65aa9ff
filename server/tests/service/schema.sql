-- The theatre: seats of a project for its members, notes for their owner.
DO $$ BEGIN CREATE ROLE synchrotron_user NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

CREATE TABLE project_members (project_id text NOT NULL, user_id text NOT NULL, PRIMARY KEY (project_id, user_id));
CREATE TABLE seats (id text PRIMARY KEY, label text, holder text NULL, audience_key text);
CREATE TABLE notes (id text PRIMARY KEY, owner text, body text,
    audience_key text GENERATED ALWAYS AS ('user:' || owner) STORED);

CREATE SCHEMA IF NOT EXISTS synchrotron;
CREATE VIEW synchrotron.user_audiences AS
    SELECT user_id, 'project:' || project_id AS audience_key FROM project_members
    UNION ALL SELECT DISTINCT user_id, 'user:' || user_id FROM project_members;

ALTER TABLE seats ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON seats USING (audience_key IN (SELECT audience_key FROM synchrotron.user_audiences
    WHERE user_id = current_setting('synchrotron.user_id', true)));
-- As Supabase's policies do: by the JWT's subject.
CREATE POLICY owners ON notes USING (owner = current_setting('request.jwt.claim.sub', true));
GRANT USAGE ON SCHEMA synchrotron TO synchrotron_user;
GRANT SELECT ON synchrotron.user_audiences TO synchrotron_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON seats, notes TO synchrotron_user;

INSERT INTO project_members VALUES ('p', 'alice'), ('p', 'bob'), ('q', 'bob'), ('a', 'alice');
