-- The trace that an action belongs to, as its device named it (W3C traceparent): kept only if it is well-formed, believed
-- for nothing.
ALTER TABLE synchrotron.action_records ADD trace_parent text COLLATE "C";
