-- The theatre in Postgres: the app's own tables, its policies, and the one view that Synchrotron asks for.

CREATE TABLE seats (
    id           text PRIMARY KEY,
    label        text NOT NULL,
    holder       text,
    audience_key text NOT NULL
);
CREATE INDEX ON seats (audience_key); -- a new device reads an audience, not the table

CREATE TABLE notes (
    id           text PRIMARY KEY,
    owner        text NOT NULL,
    body         text NOT NULL,
    audience_key text GENERATED ALWAYS AS ('user:' || owner) STORED
);
CREATE INDEX ON notes (audience_key);

CREATE TABLE project_members (
    project_id text NOT NULL,
    user_id    text NOT NULL,
    PRIMARY KEY (project_id, user_id)
);

INSERT INTO project_members VALUES ('theatre', 'alice'), ('theatre', 'bob');

-- Who may see which audience: a project's members its rows, and each user the own ones.
CREATE SCHEMA IF NOT EXISTS synchrotron;
CREATE VIEW synchrotron.user_audiences AS
    SELECT user_id, 'project:' || project_id AS audience_key FROM project_members
    UNION
    SELECT user_id, 'user:' || user_id FROM project_members;

-- The role that users act as. The server makes it too, if it is not there.
DO $$ BEGIN
    CREATE ROLE synchrotron_user NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
GRANT USAGE ON SCHEMA synchrotron TO synchrotron_user;
GRANT SELECT ON synchrotron.user_audiences TO synchrotron_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON seats, notes TO synchrotron_user;

ALTER TABLE seats ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON seats TO synchrotron_user USING (
    audience_key IN (SELECT audience_key FROM synchrotron.user_audiences
                     WHERE user_id = current_setting('synchrotron.user_id', true)));

ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY owner ON notes TO synchrotron_user USING (owner = current_setting('synchrotron.user_id', true));
