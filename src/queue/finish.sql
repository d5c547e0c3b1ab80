-- Completes or cancels jobs: out of the live table, into the history, in one statement.
-- An id that does not come back was fenced: its lease is another's now.
WITH finished AS (
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS f (id, lease_id, final_state)
),
gone AS (
  DELETE FROM ingestd.jobs j USING finished f
  WHERE j.shard = 0 AND j.id = f.id AND j.lease_id = f.lease_id
  RETURNING j.*, f.final_state
),
kept AS (
  INSERT INTO ingestd.job_history
    (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, worker_id,
     created_at, run_at, started_at)
  SELECT shard, id, kind, queue, final_state, priority, attempt,
         CASE WHEN pg_column_size(args) <= 1024 THEN args END,
         run_id, tenant, worker_id, created_at, run_at, started_at
  FROM gone
)
SELECT id FROM gone
