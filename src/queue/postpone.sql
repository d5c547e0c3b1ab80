-- Puts jobs back for later: a retry with its error, or a snooze (error null), which is no attempt.
-- A job that somebody cancelled meanwhile is not tried again: it goes to the history instead.
WITH postponed AS (
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
    AS p (id, lease_id, delay_ms, error, error_kind)
),
back AS (
  UPDATE ingestd.jobs j
  SET state = 'queued', lease_id = NULL, worker_id = NULL, deadline_at = NULL, crashes = 0,
      run_at = clock_timestamp() + p.delay_ms * interval '1 millisecond',
      attempt = j.attempt - (p.error IS NULL)::int::smallint,
      last_error = coalesce(p.error, j.last_error)
  FROM postponed p
  WHERE j.shard = 0 AND j.id = p.id AND j.lease_id = p.lease_id AND NOT j.cancel_requested
  RETURNING j.shard, j.id, j.kind, j.attempt, j.started_at, p.error, p.error_kind
),
noted AS (
  INSERT INTO ingestd.job_attempts
    (shard, job_id, kind, attempt, outcome, error_kind, error, worker_id, started_at)
  SELECT shard, id, kind, attempt, 'retry', error_kind, error, $6, started_at
  FROM back WHERE error IS NOT NULL
),
gone AS (
  DELETE FROM ingestd.jobs j USING postponed p
  WHERE j.shard = 0 AND j.id = p.id AND j.lease_id = p.lease_id AND j.cancel_requested
  RETURNING j.*
),
kept AS (
  INSERT INTO ingestd.job_history
    (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, worker_id,
     created_at, run_at, started_at)
  SELECT shard, id, kind, queue, 'cancelled', priority, attempt,
         CASE WHEN pg_column_size(args) <= 1024 THEN args END,
         run_id, tenant, worker_id, created_at, run_at, started_at
  FROM gone
)
SELECT id FROM back UNION ALL SELECT id FROM gone
