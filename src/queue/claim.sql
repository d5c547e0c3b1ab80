-- Claims up to $2 due jobs of queue $1 for worker $5, the priorities of $3 in turn.
-- One possible plan: each turn is an ordered scan of jobs_ready that begins at its priority's floor
-- in $4 and stops at its LIMIT, the UPDATE goes by primary key from an array. It does not name the
-- state again: the rows are locked, and with it a planner that believes the table empty would read
-- all of jobs_ready instead.
-- Below the floor lie the index entries of what was claimed before; they are walked over one by
-- one until a vacuum takes them, which it cannot while anybody holds a snapshot.
-- A paused queue yields nothing, and neither does any to a worker that others have given up: it
-- may not know yet, and what it claimed would have to be rescued.
-- What is leased in a batch is left out, but for what had a lease before: it may still be in its
-- batch, and is free all the same. The function takes the lock that orders claims of a queue, and
-- looks at batches from $9 on.
-- Nor does a queue that has a limit across daemons or takes turns, unless $8 says that this
-- transaction holds the queue's lock: the running jobs are counted, which are few rows, all of
-- jobs_running. A queue without such rules pays nothing for it.
WITH leased AS MATERIALIZED (SELECT ids, oldest FROM ingestd.leased($1, $9)),
open AS MATERIALIZED (
  SELECT CASE
    WHEN EXISTS (SELECT FROM ingestd.queues
                 WHERE queue = $1 AND (paused_at IS NOT NULL
                                       OR NOT $8 AND (max_running IS NOT NULL OR fair)))
      OR NOT EXISTS (SELECT FROM ingestd.workers WHERE id = $5 AND ended_at IS NULL) THEN 0
    WHEN NOT $8 THEN $2::bigint
    ELSE greatest(0, least($2::bigint, (
      SELECT CASE WHEN max_running IS NOT NULL THEN max_running - (
        SELECT count(*) FROM ingestd.jobs WHERE shard = 0 AND state = 'running' AND queue = $1)
        - cardinality((SELECT ids FROM leased)) END
      FROM ingestd.queues WHERE queue = $1)))
    END AS n
),
first AS MATERIALIZED (
  SELECT id, kind, priority, args, attempt, crashes, max_attempts, run_id, tenant, gate_key, origin_id,
         run_at, created_at, last_lease_id
  FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = ($3::smallint[])[1] AND state = 'queued'
    AND run_at <= now() AND run_at >= coalesce(($4::timestamptz[])[1], '-infinity')
    AND kind = ANY ($6)
    AND (((SELECT ids FROM leased))[width_bucket(id, (SELECT ids FROM leased))] IS DISTINCT FROM id
         OR last_lease_id IS NOT NULL)
  ORDER BY run_at, id LIMIT (SELECT n FROM open) FOR UPDATE SKIP LOCKED
),
second AS MATERIALIZED (
  SELECT id, kind, priority, args, attempt, crashes, max_attempts, run_id, tenant, gate_key, origin_id,
         run_at, created_at, last_lease_id
  FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = ($3::smallint[])[2] AND state = 'queued'
    AND run_at <= now() AND run_at >= coalesce(($4::timestamptz[])[2], '-infinity')
    AND kind = ANY ($6)
    AND (((SELECT ids FROM leased))[width_bucket(id, (SELECT ids FROM leased))] IS DISTINCT FROM id
         OR last_lease_id IS NOT NULL)
  ORDER BY run_at, id LIMIT (SELECT n FROM open) - (SELECT count(*) FROM first)
  FOR UPDATE SKIP LOCKED
),
third AS MATERIALIZED (
  SELECT id, kind, priority, args, attempt, crashes, max_attempts, run_id, tenant, gate_key, origin_id,
         run_at, created_at, last_lease_id
  FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = ($3::smallint[])[3] AND state = 'queued'
    AND run_at <= now() AND run_at >= coalesce(($4::timestamptz[])[3], '-infinity')
    AND kind = ANY ($6)
    AND (((SELECT ids FROM leased))[width_bucket(id, (SELECT ids FROM leased))] IS DISTINCT FROM id
         OR last_lease_id IS NOT NULL)
  ORDER BY run_at, id
  LIMIT (SELECT n FROM open) - (SELECT count(*) FROM first) - (SELECT count(*) FROM second)
  FOR UPDATE SKIP LOCKED
),
fourth AS MATERIALIZED (
  SELECT id, kind, priority, args, attempt, crashes, max_attempts, run_id, tenant, gate_key, origin_id,
         run_at, created_at, last_lease_id
  FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = ($3::smallint[])[4] AND state = 'queued'
    AND run_at <= now() AND run_at >= coalesce(($4::timestamptz[])[4], '-infinity')
    AND kind = ANY ($6)
    AND (((SELECT ids FROM leased))[width_bucket(id, (SELECT ids FROM leased))] IS DISTINCT FROM id
         OR last_lease_id IS NOT NULL)
  ORDER BY run_at, id
  LIMIT (SELECT n FROM open) - (SELECT count(*) FROM first) - (SELECT count(*) FROM second)
      - (SELECT count(*) FROM third)
  FOR UPDATE SKIP LOCKED
)
