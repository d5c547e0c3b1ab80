-- A full queue of notifications fails whoever notifies: nobody must, for the sake of a hint.

CREATE FUNCTION ingestd.hint(channel text, payload text) RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(CASE WHEN pg_notification_queue_usage() < 0.5
                       THEN pg_notify(channel, payload)::text END, '')
$$;
COMMENT ON FUNCTION ingestd.hint(text, text) IS 'Notifies, unless the queue of notifications fills up: who listens also polls. Returns an empty text.';

-- As it was, but for the hints.
CREATE OR REPLACE FUNCTION ingestd.cancel(job bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text := 'not found'; lease bigint; key text;
BEGIN
  -- It may start or go back between the two statements: look again a few times.
  FOR look IN 1..3 LOOP
    SELECT gate_key INTO key FROM ingestd.jobs WHERE shard = 0 AND id = job AND state = 'queued';
    WITH gone AS (
      DELETE FROM ingestd.jobs WHERE shard = 0 AND id = job AND state <> 'running' RETURNING *)
    INSERT INTO ingestd.job_history
      (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, created_at, run_at,
       started_at)
    SELECT shard, id, kind, queue, 'cancelled', priority, attempt,
           CASE WHEN pg_column_size(args) <= 1024 THEN args END, run_id, tenant, created_at,
           run_at, started_at
    FROM gone;
    IF FOUND THEN
      IF key IS NOT NULL THEN
        PERFORM ingestd.hint('ingestd_gate', key);
      END IF;
      result := 'cancelled';
      EXIT;
    END IF;
    UPDATE ingestd.jobs SET cancel_requested = true
    WHERE shard = 0 AND id = job AND state = 'running' RETURNING lease_id INTO lease;
    IF FOUND THEN
      PERFORM ingestd.hint('ingestd_cancel', lease::text);
      result := 'requested';
      EXIT;
    END IF;
  END LOOP;
  IF result <> 'not found' THEN
    INSERT INTO ingestd.audit_log (actor, action, object)
    VALUES ('sql:' || session_user, 'job.cancel', 'job/' || job);
  END IF;
  RETURN result;
END$$;
