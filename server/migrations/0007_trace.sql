-- The trace that an action belongs to, as its device named it (W3C traceparent): kept only if it is well-formed, believed
-- for nothing.
ALTER TABLE synchrotron.action_records ADD trace_parent text COLLATE "C";

-- Since when a slice waits to be published, for whoever watches the server.
ALTER TABLE synchrotron.outbox ADD created_at timestamptz NOT NULL DEFAULT now();
