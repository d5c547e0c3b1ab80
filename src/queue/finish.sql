-- Completes or cancels jobs: out of the live table, into the history, in one statement.
-- An id that does not come back was fenced: its lease is another's now. A lease is drawn for one
-- job and never again, so matching both lists matches the pairs; and unlike a join it leaves one
-- plan, by primary key in the order of the ids, however wrong the statistics are.
WITH gone AS (
  DELETE FROM ingestd.jobs
  WHERE shard = 0 AND id = ANY ($1::bigint[]) AND lease_id = ANY ($2::bigint[])
  RETURNING *
),
kept AS (
  INSERT INTO ingestd.job_history
    (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, worker_id,
     created_at, run_at, started_at)
  SELECT shard, id, kind, queue, $3, priority, attempt,
         CASE WHEN pg_column_size(args) <= 1024 THEN args END,
         run_id, tenant, worker_id, created_at, run_at, started_at
  FROM gone
)
SELECT id FROM gone
