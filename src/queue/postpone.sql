-- Puts jobs back for later: a retry with its error, or a snooze (error null), which is no attempt;
-- or as they were (delay null too), where they were claimed ahead and did not begin.
-- What has a gate is held again, for its slot may be another's when its time comes; but what did
-- not begin keeps the slot and the token that it was admitted with, unless its gate was paused.
-- A job that somebody cancelled meanwhile is not tried again: it goes to the history instead.
-- $1 ids, $2 leases, $3 delays in milliseconds, $4 errors, $5 error kinds, $6 worker. Found as in
-- finish.sql; what belongs to a row is looked up by the place of its id.
WITH back AS (
  UPDATE ingestd.jobs
  SET state = CASE WHEN gate_key IS NULL THEN 'queued'
                WHEN ($3::bigint[])[array_position($1::bigint[], id)] IS NULL
                     AND NOT (SELECT g.paused FROM ingestd.gate_of(gate_key) g) THEN 'queued'
                ELSE 'held' END,
      lease_id = NULL, worker_id = NULL, deadline_at = NULL,
      crashes = CASE WHEN ($3::bigint[])[array_position($1::bigint[], id)] IS NULL
                THEN crashes ELSE 0 END,
      run_at = coalesce(clock_timestamp()
        + ($3::bigint[])[array_position($1::bigint[], id)] * interval '1 millisecond', run_at),
      attempt = attempt
        - (($4::text[])[array_position($1::bigint[], id)] IS NULL)::int::smallint,
      last_error = coalesce(($4::text[])[array_position($1::bigint[], id)], last_error)
  WHERE shard = 0 AND id = ANY ($1::bigint[]) AND lease_id = ANY ($2::bigint[])
    AND NOT cancel_requested
  RETURNING shard, id, kind, attempt, started_at, array_position($1::bigint[], id) AS place
),
noted AS (
  INSERT INTO ingestd.job_attempts
    (shard, job_id, kind, attempt, outcome, error_kind, error, worker_id, started_at)
  SELECT shard, id, kind, attempt, 'retry', ($5::text[])[place], ($4::text[])[place], $6, started_at
  FROM back WHERE ($4::text[])[place] IS NOT NULL
),
gone AS (
  DELETE FROM ingestd.jobs
  WHERE shard = 0 AND id = ANY ($1::bigint[]) AND lease_id = ANY ($2::bigint[])
    AND cancel_requested
  RETURNING *
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
