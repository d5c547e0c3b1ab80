-- What is in each known queue, at a cost that does not grow with the backlog: of each state at
-- most $1 rows are counted, found by index.
-- The plan: a loose scan per list of queues, one probe a queue; then, for each queue, ranges of
-- jobs_ready, one per priority (the inner ORDER BY and LIMIT see to it: a join by priority would
-- read the whole queue), that stop at the LIMIT; jobs_held_queue and dead_jobs_queue likewise.
-- Only what runs is read whole: it is bounded by the slots. The session switches sequential and
-- bitmap scans and hash joins off (see `queues` in read.rs).
WITH RECURSIVE queued (queue) AS (
  (SELECT queue FROM ingestd.jobs WHERE shard = 0 AND state = 'queued' ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT j.queue FROM ingestd.jobs j
          WHERE j.shard = 0 AND j.state = 'queued' AND j.queue > q.queue
          ORDER BY j.queue LIMIT 1)
  FROM queued q WHERE q.queue IS NOT NULL
),
held (queue) AS (
  (SELECT queue FROM ingestd.jobs WHERE shard = 0 AND state = 'held' ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT j.queue FROM ingestd.jobs j
          WHERE j.shard = 0 AND j.state = 'held' AND j.queue > q.queue
          ORDER BY j.queue LIMIT 1)
  FROM held q WHERE q.queue IS NOT NULL
),
-- The index dead_jobs_queue alone; it has no shard, and naming one would read the table.
dead (queue) AS (
  (SELECT queue FROM ingestd.dead_jobs WHERE replayed_at IS NULL ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT d.queue FROM ingestd.dead_jobs d
          WHERE d.replayed_at IS NULL AND d.queue > q.queue
          ORDER BY d.queue LIMIT 1)
  FROM dead q WHERE q.queue IS NOT NULL
),
running AS MATERIALIZED (
  SELECT queue, least(count(*), $1) AS n, min(started_at) AS since
  FROM ingestd.jobs WHERE shard = 0 AND state = 'running'
  GROUP BY queue
),
-- A queue is known before its first job, so that its zeros are published.
known AS (
  SELECT queue FROM ingestd.queues
  UNION SELECT queue FROM ingestd.job_kinds
  UNION SELECT queue FROM queued WHERE queue IS NOT NULL
  UNION SELECT queue FROM held WHERE queue IS NOT NULL
  UNION SELECT queue FROM dead WHERE queue IS NOT NULL
  UNION SELECT queue FROM running
)
SELECT k.queue,
       q.paused_at IS NOT NULL AS paused,
       q.max_running,
       coalesce(q.fair, false) AS fair,
       due.n                   AS queued,
       later.scheduled         AS scheduled,
       later.retrying          AS retrying,
       waiting.n               AS held,
       coalesce(r.n, 0)        AS running,
       letters.n               AS dead,
       extract(epoch FROM now() - oldest.run_at)::float8 AS oldest_ready_age_seconds,
       extract(epoch FROM now() - r.since)::float8       AS oldest_running_age_seconds
FROM known k
LEFT JOIN ingestd.queues q USING (queue)
LEFT JOIN running r USING (queue)
CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM (
    SELECT FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
      SELECT FROM ingestd.jobs j
      WHERE j.shard = 0 AND j.queue = k.queue AND j.priority = p.priority AND j.state = 'queued'
        AND j.run_at <= now()
      ORDER BY j.run_at LIMIT $1) AS row
    LIMIT $1) AS counted) AS due
-- Tried or not is in no index, so that both share what is counted.
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE attempt = 0) AS scheduled,
         count(*) FILTER (WHERE attempt > 0) AS retrying
  FROM (
    SELECT row.attempt FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
      SELECT j.attempt FROM ingestd.jobs j
      WHERE j.shard = 0 AND j.queue = k.queue AND j.priority = p.priority AND j.state = 'queued'
        AND j.run_at > now()
      ORDER BY j.run_at LIMIT $1) AS row
    LIMIT $1) AS counted) AS later
-- A range of one, in its order: to an equality jobs_held is as cheap where few are held.
CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM (
    SELECT FROM ingestd.jobs j
    WHERE j.shard = 0 AND j.queue >= k.queue AND j.queue <= k.queue AND j.state = 'held'
    ORDER BY j.queue LIMIT $1) AS counted) AS waiting
CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM (
    SELECT FROM ingestd.dead_jobs d
    WHERE d.queue = k.queue AND d.replayed_at IS NULL LIMIT $1) AS counted) AS letters
CROSS JOIN LATERAL (
  SELECT min(first.run_at) AS run_at
  FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
    SELECT j.run_at FROM ingestd.jobs j
    WHERE j.shard = 0 AND j.queue = k.queue AND j.priority = p.priority AND j.state = 'queued'
      AND j.run_at <= now()
    ORDER BY j.run_at LIMIT 1) AS first) AS oldest
ORDER BY k.queue
