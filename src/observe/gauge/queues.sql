-- What is in each known queue. Reads all of ingestd.jobs once: the live table holds unfinished
-- work only, and no index has both the due time and the attempt.
WITH live AS (
  SELECT queue,
         count(*) FILTER (WHERE state = 'queued' AND run_at <= now())                 AS queued,
         count(*) FILTER (WHERE state = 'queued' AND run_at >  now() AND attempt = 0) AS scheduled,
         count(*) FILTER (WHERE state = 'queued' AND run_at >  now() AND attempt > 0) AS retrying,
         count(*) FILTER (WHERE state = 'held')                                       AS held,
         count(*) FILTER (WHERE state = 'running')                                    AS running,
         min(run_at)     FILTER (WHERE state = 'queued' AND run_at <= now())          AS ready_since,
         min(started_at) FILTER (WHERE state = 'running')                             AS running_since
  FROM ingestd.jobs WHERE shard = 0
  GROUP BY queue
),
-- The index dead_jobs_queue alone; it has no shard, and naming one would read the table.
dead AS (
  SELECT queue, count(*) AS dead
  FROM ingestd.dead_jobs WHERE replayed_at IS NULL
  GROUP BY queue
),
-- A queue is known before its first job, so that its zeros are published.
known AS (
  SELECT queue FROM ingestd.queues
  UNION SELECT queue FROM ingestd.job_kinds
  UNION SELECT queue FROM live
  UNION SELECT queue FROM dead
)
SELECT k.queue,
       q.paused_at IS NOT NULL AS paused,
       coalesce(l.queued, 0)    AS queued,
       coalesce(l.scheduled, 0) AS scheduled,
       coalesce(l.retrying, 0)  AS retrying,
       coalesce(l.held, 0)      AS held,
       coalesce(l.running, 0)   AS running,
       coalesce(d.dead, 0)      AS dead,
       extract(epoch FROM now() - l.ready_since)::float8   AS oldest_ready_age_seconds,
       extract(epoch FROM now() - l.running_since)::float8 AS oldest_running_age_seconds
FROM known k
LEFT JOIN ingestd.queues q USING (queue)
LEFT JOIN live l USING (queue)
LEFT JOIN dead d USING (queue)
ORDER BY k.queue
