-- Every gate with what is behind it, and in a row without a pattern what no gate fits.
-- $1 the pattern to go on after, or null; $2 rows.
-- Counts the jobs that have a key: held ones by jobs_held, the others by jobs_gated.
WITH behind AS (
  SELECT gate_key, count(*) AS held, 0::bigint AS admitted, 0::bigint AS running
  FROM ingestd.jobs WHERE shard = 0 AND state = 'held' AND gate_key IS NOT NULL
  GROUP BY gate_key
  UNION ALL
  SELECT gate_key, 0, count(*) FILTER (WHERE state = 'queued'),
         count(*) FILTER (WHERE state = 'running')
  FROM ingestd.jobs WHERE shard = 0 AND gate_key IS NOT NULL AND state <> 'held'
  GROUP BY gate_key
),
keyed AS (
  SELECT gate_key, sum(held) AS held, sum(admitted) AS admitted, sum(running) AS running
  FROM behind GROUP BY gate_key
),
counted AS (
  SELECT g.pattern, count(*) AS keys, sum(k.held)::bigint AS held,
         sum(k.admitted)::bigint AS admitted, sum(k.running)::bigint AS running
  FROM keyed k CROSS JOIN LATERAL ingestd.gate_of(k.gate_key) g
  GROUP BY g.pattern
)
SELECT * FROM (
SELECT g.pattern, g.max_running, g.rate_per_sec, g.burst, g.origin, g.paused_at,
       coalesce(c.keys, 0) AS keys, coalesce(c.held, 0) AS held,
       coalesce(c.admitted, 0) AS admitted, coalesce(c.running, 0) AS running
FROM ingestd.gates g LEFT JOIN counted c USING (pattern)
UNION ALL
SELECT NULL, 1, NULL, NULL, NULL, NULL, keys, held, admitted, running
FROM counted WHERE pattern IS NULL) gates
WHERE $1::text IS NULL OR pattern IS NULL OR pattern > $1
ORDER BY pattern NULLS LAST LIMIT $2
