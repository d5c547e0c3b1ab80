-- Claims up to $2 due jobs of queue $1 for worker $7, priorities $3 to $6 in turn.
-- One possible plan: each turn is an ordered scan of jobs_ready that stops at its LIMIT, the
-- UPDATE goes by primary key from an array. It does not name the state again: the rows are locked,
-- and with it a planner that believes the table empty would read all of jobs_ready instead.
-- A paused queue yields nothing, and neither does any to a worker that others have given up: it
-- may not know yet, and what it claimed would have to be rescued.
WITH open AS MATERIALIZED (
  SELECT CASE WHEN EXISTS (SELECT FROM ingestd.queues WHERE queue = $1 AND paused_at IS NOT NULL)
           OR NOT EXISTS (SELECT FROM ingestd.workers WHERE id = $7 AND ended_at IS NULL)
         THEN 0 ELSE $2::bigint END AS n
),
first AS MATERIALIZED (
  SELECT id FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = $3 AND state = 'queued' AND run_at <= now()
    AND kind = ANY ($8)
  ORDER BY run_at, id LIMIT (SELECT n FROM open) FOR UPDATE SKIP LOCKED
),
second AS MATERIALIZED (
  SELECT id FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = $4 AND state = 'queued' AND run_at <= now()
    AND kind = ANY ($8)
  ORDER BY run_at, id LIMIT (SELECT n FROM open) - (SELECT count(*) FROM first)
  FOR UPDATE SKIP LOCKED
),
third AS MATERIALIZED (
  SELECT id FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = $5 AND state = 'queued' AND run_at <= now()
    AND kind = ANY ($8)
  ORDER BY run_at, id
  LIMIT (SELECT n FROM open) - (SELECT count(*) FROM first) - (SELECT count(*) FROM second)
  FOR UPDATE SKIP LOCKED
),
fourth AS MATERIALIZED (
  SELECT id FROM ingestd.jobs
  WHERE shard = 0 AND queue = $1 AND priority = $6 AND state = 'queued' AND run_at <= now()
    AND kind = ANY ($8)
  ORDER BY run_at, id
  LIMIT (SELECT n FROM open) - (SELECT count(*) FROM first) - (SELECT count(*) FROM second)
      - (SELECT count(*) FROM third)
  FOR UPDATE SKIP LOCKED
)
UPDATE ingestd.jobs j
SET state = 'running', lease_id = nextval('ingestd.lease_seq'), worker_id = $7,
    attempt = j.attempt + 1, started_at = clock_timestamp(), cancel_requested = false,
    deadline_at = clock_timestamp() + $9[array_position($8, j.kind)] * interval '1 millisecond'
WHERE j.shard = 0 AND j.id = ANY (ARRAY(
  SELECT id FROM first UNION ALL SELECT id FROM second
  UNION ALL SELECT id FROM third UNION ALL SELECT id FROM fourth))
RETURNING j.id, j.lease_id, j.kind, j.queue, j.priority, j.args, j.attempt, j.crashes,
          j.max_attempts, j.run_id, j.tenant,
          (extract(epoch FROM j.started_at - j.run_at) * 1000)::bigint AS waited_ms,
          (extract(epoch FROM j.started_at - j.created_at) * 1000)::bigint AS age_ms
