-- Completes or cancels jobs: out of the live table, into the history, in one statement.
-- $1 ids in their order, $2 the lease of each, $3 state, $4 outputs, null where the jobs have none,
-- $5 milliseconds from each one's run_at to its claim, $6 batch_leases that end with them, $7 worker.
-- What belongs to a row is looked up by halves: `= ANY` compares each row with all of them under a
-- generic plan; and unlike a join it leaves one plan, by primary key in the order of the ids,
-- however wrong the statistics are.
-- An id that does not come back was fenced: its lease is another's now. A job leased in a batch has
-- no lease in its row, but for the last that was taken from it; that one and those before it end
-- nothing.
WITH gone AS (
  DELETE FROM ingestd.jobs
  WHERE shard = 0 AND id = ANY ($1::bigint[])
    AND CASE WHEN lease_id IS NULL
        THEN coalesce(last_lease_id, 0) < ($2::bigint[])[width_bucket(id, $1::bigint[])]
        ELSE lease_id = ($2::bigint[])[width_bucket(id, $1::bigint[])] END
  RETURNING *
),
-- After a failover that lost the last ids, one may come round again as another's.
ended AS (DELETE FROM ingestd.batch_leases WHERE id = ANY ($6::bigint[]) AND worker_id = $7),
kept AS (
  INSERT INTO ingestd.job_history
    (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, worker_id,
     created_at, run_at, started_at, output)
  SELECT shard, id, kind, queue, $3, priority,
         attempt + (lease_id IS NULL)::int,
         CASE WHEN pg_column_size(args) <= 1024 THEN args END,
         run_id, tenant, coalesce(worker_id, $7), created_at, run_at,
         CASE WHEN lease_id IS NOT NULL THEN started_at
              ELSE run_at + ($5::bigint[])[width_bucket(id, $1::bigint[])]
                          * interval '1 millisecond' END,
         CASE WHEN $4::jsonb[] IS NOT NULL
              THEN ($4::jsonb[])[width_bucket(id, $1::bigint[])] END
  FROM gone
)
SELECT id FROM gone
