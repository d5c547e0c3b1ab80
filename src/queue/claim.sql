-- Claims up to $2 due jobs of queue $1 for worker $5, the priorities of $3 in turn.
-- One possible plan: each turn is an ordered scan of jobs_ready that begins at its priority's floor
-- in $4 and stops at its LIMIT, the UPDATE goes by primary key from an array. It does not name the
-- state again: the rows are locked, and with it a planner that believes the table empty would read
-- all of jobs_ready instead.
-- Below the floor lie the index entries of what was claimed before; they are walked over one by
-- one until a vacuum takes them, which it cannot while anybody holds a snapshot.
-- A paused queue yields nothing, and neither does any to a worker that others have given up: it
-- may not know yet, and what it claimed would have to be rescued.
-- Where $9 allows it and every worker knows of it, jobs are leased in a batch, one row of
-- batch_leases for all that may take as long: their own rows stay as they are, locked to the end of
-- the claim so that whoever changes one waits for it. Not those that a gate, a run or a suspicion
-- counts by its state, and not those that had a lease before: they may still be in its batch, and
-- are free all the same.
-- What is leased so already is left out; the function takes the lock that orders claims of a queue,
-- and looks at batches from $10 on.
-- Nor does a queue that has a limit across daemons or takes turns, unless $8 says that this
-- transaction holds the queue's lock: the running jobs are counted, which are few rows, all of
-- jobs_running. A queue without such rules pays nothing for it.
WITH leased AS MATERIALIZED (SELECT ids, oldest FROM ingestd.leased($1, $10)),
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
),
found AS MATERIALIZED (
  SELECT *, $9 AND gate_key IS NULL AND run_id IS NULL AND crashes = 0 AND last_lease_id IS NULL
    AND NOT EXISTS (SELECT FROM ingestd.workers WHERE ended_at IS NULL AND NOT knows_batches)
    AS in_batch
  FROM (
    SELECT * FROM first UNION ALL SELECT * FROM second
    UNION ALL SELECT * FROM third UNION ALL SELECT * FROM fourth) f
),
together AS MATERIALIZED (
  SELECT *, nextval('ingestd.lease_seq') AS lease_id,
         ($7::interval[])[array_position($6, kind)] AS time_limit
  FROM found WHERE in_batch
),
batch AS (
  INSERT INTO ingestd.batch_leases (worker_id, queue, job_ids, lease_ids, time_limit)
  SELECT $5, $1, array_agg(id), array_agg(lease_id), time_limit FROM together GROUP BY time_limit
  RETURNING id, started_at, time_limit
),
one_by_one AS (
  UPDATE ingestd.jobs j
  SET state = 'running', lease_id = nextval('ingestd.lease_seq'), worker_id = $5,
      attempt = j.attempt + 1, started_at = clock_timestamp(), cancel_requested = false,
      deadline_at = clock_timestamp() + ($7::interval[])[array_position($6, j.kind)]
  WHERE j.shard = 0 AND j.id = ANY (ARRAY(SELECT id FROM found WHERE NOT in_batch))
  RETURNING j.id, j.lease_id, j.kind, j.priority, j.args, j.attempt, j.crashes, j.max_attempts,
            j.run_id, j.tenant, j.gate_key, j.origin_id, j.run_at, j.created_at, j.started_at
)
SELECT *, NULL::bigint AS batch_id, (SELECT oldest FROM leased) AS batches_since FROM one_by_one
UNION ALL
SELECT t.id, t.lease_id, t.kind, t.priority, t.args, (t.attempt + 1)::smallint, t.crashes,
       t.max_attempts, t.run_id, t.tenant, t.gate_key, t.origin_id, t.run_at, t.created_at,
       b.started_at, b.id, coalesce((SELECT oldest FROM leased), (SELECT min(id) FROM batch))
FROM batch b JOIN together t ON t.time_limit = b.time_limit
