-- Saves the result of a step, if the lease is still held. Repeated after an answer that was lost it
-- changes nothing.
-- $1 job, $2 lease, $3 step, $4 result, $5 attempt. Null where the lease is lost, else the job's
-- crashes. The lock keeps the lease where it is until the commit; both tables by primary key.
WITH held AS MATERIALIZED (
  SELECT crashes FROM ingestd.jobs
  WHERE shard = 0 AND id = $1 AND lease_id = $2 FOR NO KEY UPDATE
),
saved AS (
  INSERT INTO ingestd.job_steps (job_id, step, result, lease_id, attempt)
  SELECT $1, $3, $4, $2, $5 FROM held
  ON CONFLICT (job_id, shard, step) DO NOTHING
)
SELECT crashes FROM held
