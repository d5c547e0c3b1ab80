-- Completes or cancels jobs: out of the live table, into the history, in one statement.
-- An id that does not come back was fenced: its lease is another's now. A lease is drawn for one
-- job and never again, so matching both lists matches the pairs; and unlike a join it leaves one
-- plan, by primary key in the order of the ids, however wrong the statistics are.
-- $2 leases in their order, for they are looked up by halves: `= ANY` compares each row with all of
-- them under a generic plan. $3 state, $4 outputs in the order of the ids, null where the jobs have none.
WITH gone AS (
  DELETE FROM ingestd.jobs
  WHERE shard = 0 AND id = ANY ($1::bigint[])
    AND ($2::bigint[])[width_bucket(lease_id, $2::bigint[])] = lease_id
  RETURNING *
),
kept AS (
  INSERT INTO ingestd.job_history
    (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, worker_id,
     created_at, run_at, started_at, output)
  SELECT shard, id, kind, queue, $3, priority, attempt,
         CASE WHEN pg_column_size(args) <= 1024 THEN args END,
         run_id, tenant, worker_id, created_at, run_at, started_at,
         CASE WHEN $4::jsonb[] IS NOT NULL
              THEN ($4::jsonb[])[array_position($1::bigint[], id)] END
  FROM gone
)
SELECT id FROM gone
