-- A replay is known to the outside under the name of the job that it goes on with.

ALTER TABLE ingestd.jobs ADD COLUMN origin_id bigint;
ALTER TABLE ingestd.dead_jobs ADD COLUMN origin_id bigint;
COMMENT ON COLUMN ingestd.jobs.origin_id IS 'The job whose work this one goes on with, through any number of replays: idempotency keys name it, so that an effect outside is not had twice. Null: itself, also where a replay was to begin afresh.';
COMMENT ON COLUMN ingestd.dead_jobs.origin_id IS 'As in jobs.';

DROP FUNCTION ingestd.replay(bigint, jsonb);
CREATE FUNCTION ingestd.replay(letter bigint, args jsonb DEFAULT NULL, afresh boolean DEFAULT false)
RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE job bigint;
BEGIN
  WITH dead AS (
    SELECT * FROM ingestd.dead_jobs
    WHERE shard = 0 AND id = letter AND replayed_at IS NULL FOR UPDATE),
  again AS (
    INSERT INTO ingestd.jobs
      (kind, args, queue, priority, max_attempts, unique_key, gate_key, run_id, tenant, origin_id,
       meta)
    SELECT kind, coalesce(replay.args, args), queue, priority, max_attempts, unique_key, gate_key,
           run_id, tenant, CASE WHEN NOT replay.afresh THEN coalesce(origin_id, id) END,
           (coalesce(meta, '{}') - 'args_edited') || jsonb_build_object('replayed_from', id)
             || CASE WHEN replay.args IS NULL THEN '{}' ELSE jsonb_build_object('args_edited', true) END
    FROM dead
    ON CONFLICT (shard, unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id),
  moved AS (
    UPDATE ingestd.job_steps s SET job_id = again.id
    FROM again WHERE s.job_id = letter AND s.shard = 0 AND replay.args IS NULL AND NOT replay.afresh)
  UPDATE ingestd.dead_jobs d SET replayed_to = again.id, replayed_at = now()
  FROM again WHERE d.shard = 0 AND d.id = letter
  RETURNING replayed_to INTO job;
  IF job IS NOT NULL THEN
    INSERT INTO ingestd.audit_log (actor, action, object, detail)
    VALUES ('sql:' || session_user, 'dead.retry', 'job/' || letter,
            jsonb_build_object('job', job, 'args_edited', args IS NOT NULL, 'afresh', afresh));
  END IF;
  RETURN job;
END$$;
COMMENT ON FUNCTION ingestd.replay(bigint, jsonb, boolean) IS 'Puts a dead letter back to work after the steps it has done, or from the first one with other arguments where they are given; returns the new job''s id. Its idempotency keys are the letter''s, unless it is to begin afresh, as if nothing had been done. Null: there is no such letter, it was replayed already, or an unfinished job holds its unique key.';
