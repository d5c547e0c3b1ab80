-- Gives one job up: out of the live table, among the dead letters, with the attempt noted.
-- $3 reason, $4 error, $5 error kind, $6 fingerprint, $7 whether the attempt ended by itself.
WITH gone AS (
  DELETE FROM ingestd.jobs WHERE shard = 0 AND id = $1 AND lease_id = $2 RETURNING *
),
noted AS (
  INSERT INTO ingestd.job_attempts
    (shard, job_id, kind, attempt, outcome, error_kind, error, worker_id, started_at)
  SELECT shard, id, kind, attempt, CASE WHEN $7 THEN 'dead' ELSE 'crash' END, $5, $4,
         worker_id, started_at
  FROM gone
)
INSERT INTO ingestd.dead_jobs
  (shard, id, kind, args, queue, priority, max_attempts, unique_key, gate_key, run_id, tenant,
   meta, attempt, crashes, reason, error, fingerprint, created_at, origin_id, replayed_from)
SELECT shard, id, kind, args, queue, priority, max_attempts, unique_key, gate_key, run_id, tenant,
       meta, attempt, crashes + (NOT $7)::int::smallint, $3, $4, $6, created_at, origin_id,
       CASE WHEN meta ->> 'replayed_from' ~ '^[0-9]{1,18}$' THEN (meta ->> 'replayed_from')::bigint END
FROM gone
RETURNING id, kind, args, run_id, error
