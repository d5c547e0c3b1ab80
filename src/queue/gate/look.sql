-- Keys with held jobs, in order, after the key $1, at most $2: whether one of them may be admitted
-- now, or one that slipped past a pause is to be taken back, as far as a look without a lock can
-- tell, and in how many milliseconds the first is due.
-- One probe of jobs_held per key and priority, however many jobs wait: the next key begins where
-- the last one ended. Suspects without a key sort behind all keys and are never reached.
WITH RECURSIVE keys (key, n) AS (
  (SELECT gate_key, 1 FROM ingestd.jobs
   WHERE shard = 0 AND state = 'held' AND gate_key > $1 ORDER BY gate_key LIMIT 1)
  UNION ALL
  SELECT (SELECT j.gate_key FROM ingestd.jobs j
          WHERE j.shard = 0 AND j.state = 'held' AND j.gate_key > k.key
          ORDER BY j.gate_key LIMIT 1), k.n + 1
  FROM keys k WHERE k.key IS NOT NULL AND k.n < $2
),
paused AS MATERIALIZED (
  SELECT coalesce(array_agg(queue), '{}') AS queues FROM ingestd.queues WHERE paused_at IS NOT NULL
)
SELECT k.key,
       first.run_at <= clock_timestamp() AND NOT g.paused AND (
         g.max_running IS NULL
         -- What is admitted and may not run now will be taken back: it counts as room.
         OR g.max_running > (
           SELECT count(*) FROM (
             SELECT FROM ingestd.jobs j
             WHERE j.shard = 0 AND j.gate_key = k.key AND j.state <> 'held'
               AND (j.state = 'running' OR (j.run_at <= now()
                 AND j.queue <> ALL ((SELECT queues FROM paused)::text[])))
             LIMIT g.max_running) used))
         OR g.paused AND EXISTS (
           SELECT FROM ingestd.jobs j
           WHERE j.shard = 0 AND j.gate_key = k.key AND j.state <> 'held' AND j.state = 'queued')
         AS is_open,
       ceil(extract(epoch FROM first.run_at - clock_timestamp()) * 1000)::bigint AS due_ms
FROM keys k
CROSS JOIN LATERAL (
  SELECT min(next.run_at) AS run_at
  FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
    SELECT run_at FROM ingestd.jobs
    WHERE shard = 0 AND gate_key = k.key AND priority = p.priority AND state = 'held'
    ORDER BY run_at LIMIT 1) next) first
CROSS JOIN LATERAL ingestd.gate_of(k.key) g
WHERE k.key IS NOT NULL
ORDER BY k.key
