-- Keepers of gates are woken at the commit, as workers are since 0011: decided by the statement,
-- the try-lock silenced a key for everybody else for as long as its transaction went on.

CREATE OR REPLACE FUNCTION ingestd.hold_gated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.gate_key = '' THEN
    NEW.gate_key := NULL;
  ELSE
    NEW.state := 'held';
  END IF;
  RETURN NEW;
END$$;
COMMENT ON FUNCTION ingestd.hold_gated() IS 'Holds a new job with a gate key until its gate admits it; an empty key is none.';

-- However many keys a transaction inserts for, two of its rows at most are kept for the commit: one
-- lock and one notification per key would fill the server's table of locks.
CREATE FUNCTION ingestd.marks_gate(key text, due timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE seen text := coalesce(current_setting('ingestd.gated', true), '');
BEGIN
  IF due > now() OR seen IN ('*', '=' || key) THEN
    RETURN false;
  END IF;
  PERFORM set_config('ingestd.gated', CASE seen WHEN '' THEN '=' || key ELSE '*' END, true);
  RETURN true;
END$$;
COMMENT ON FUNCTION ingestd.marks_gate(text, timestamptz) IS 'Notes in the setting ingestd.gated, until the transaction or the savepoint ends, whom to wake: the keepers of one key (=), or of all (*). Says whether that changed it.';

CREATE FUNCTION ingestd.wake_gate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE gated text := current_setting('ingestd.gated', true);
BEGIN
  IF pg_notification_queue_usage() < 0.5
     AND pg_try_advisory_xact_lock(1229866838, hashtext(gated)) THEN
    PERFORM pg_notify('ingestd_gate', CASE WHEN gated = '*' THEN '' ELSE substr(gated, 2) END);
  END IF;
  RETURN NULL;
END$$;
COMMENT ON FUNCTION ingestd.wake_gate() IS 'Wakes the keepers of gates for what the transaction inserted, unless somebody else is about to.';

DROP TRIGGER wake_gates ON ingestd.jobs;
DROP FUNCTION ingestd.wake_gates();
CREATE CONSTRAINT TRIGGER wake_gate AFTER INSERT ON ingestd.jobs
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.gate_key IS NOT NULL AND ingestd.marks_gate(NEW.gate_key, NEW.run_at))
  EXECUTE FUNCTION ingestd.wake_gate();

-- ── what a worker serves ────────────────────────────────────────────────────

ALTER TABLE ingestd.workers ADD COLUMN slots jsonb;
COMMENT ON COLUMN ingestd.workers.slots IS 'Per queue that it serves its slots and how many were taken at the last heartbeat: {"default": [10, 3]}. Null: before the first one, or of an older version.';
COMMENT ON COLUMN ingestd.workers.queues IS 'The queues that it knew when it started; those that it serves stand in slots.';
