-- What people do to jobs, for those who speak SQL: each change with its entry in the audit log.

CREATE FUNCTION ingestd.cancel(job bigint) RETURNS text LANGUAGE plpgsql AS $$
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
        PERFORM pg_notify('ingestd_gate', key);
      END IF;
      result := 'cancelled';
      EXIT;
    END IF;
    UPDATE ingestd.jobs SET cancel_requested = true
    WHERE shard = 0 AND id = job AND state = 'running' RETURNING lease_id INTO lease;
    IF FOUND THEN
      PERFORM pg_notify('ingestd_cancel', lease::text);
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
COMMENT ON FUNCTION ingestd.cancel(bigint) IS 'Cancels a job. cancelled: it was waiting and will not run. requested: it runs, and its handler was told to stop. not found: no unfinished job has the id.';

CREATE FUNCTION ingestd.replay(letter bigint, args jsonb DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE job bigint;
BEGIN
  WITH dead AS (
    SELECT * FROM ingestd.dead_jobs
    WHERE shard = 0 AND id = letter AND replayed_at IS NULL FOR UPDATE),
  again AS (
    INSERT INTO ingestd.jobs
      (kind, args, queue, priority, max_attempts, unique_key, gate_key, run_id, tenant, meta)
    SELECT kind, coalesce(replay.args, args), queue, priority, max_attempts, unique_key, gate_key,
           run_id, tenant,
           (coalesce(meta, '{}') - 'args_edited') || jsonb_build_object('replayed_from', id)
             || CASE WHEN replay.args IS NULL THEN '{}' ELSE jsonb_build_object('args_edited', true) END
    FROM dead
    ON CONFLICT (shard, unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id)
  UPDATE ingestd.dead_jobs d SET replayed_to = again.id, replayed_at = now()
  FROM again WHERE d.shard = 0 AND d.id = letter
  RETURNING replayed_to INTO job;
  IF job IS NOT NULL THEN
    INSERT INTO ingestd.audit_log (actor, action, object, detail)
    VALUES ('sql:' || session_user, 'dead.retry', 'job/' || letter, jsonb_build_object('job', job));
  END IF;
  RETURN job;
END$$;
COMMENT ON FUNCTION ingestd.replay(bigint, jsonb) IS 'Puts a dead letter back to work, with other arguments where they are given; returns the new job''s id. Null: there is no such letter, it was replayed already, or an unfinished job holds its unique key.';
