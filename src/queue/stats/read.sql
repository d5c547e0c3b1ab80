-- Sums of the last $1 minutes of queue $2 and kind $3 (null: any): per minute where $4, else per
-- queue and kind. The range of minutes is the head of the primary key.
SELECT CASE WHEN $4 THEN minute ELSE 'epoch' END AS minute,
       CASE WHEN $4 THEN '' ELSE queue END AS queue,
       CASE WHEN $4 THEN '' ELSE kind END AS kind,
       coalesce(sum(n_jobs) FILTER (WHERE outcome = 'success'), 0)::bigint   AS success,
       coalesce(sum(n_jobs) FILTER (WHERE outcome = 'retry'), 0)::bigint     AS retry,
       coalesce(sum(n_jobs) FILTER (WHERE outcome = 'dead'), 0)::bigint      AS dead,
       coalesce(sum(n_jobs) FILTER (WHERE outcome = 'cancelled'), 0)::bigint AS cancelled,
       coalesce(sum(n_jobs) FILTER (WHERE outcome = 'snoozed'), 0)::bigint   AS snoozed,
       coalesce(sum(n_jobs) FILTER (WHERE outcome = 'lost'), 0)::bigint      AS lost,
       sum(n_jobs)::bigint AS n_jobs, sum(duration_ms)::bigint AS duration_ms,
       sum(wait_ms)::bigint AS wait_ms,
       ARRAY[sum(buckets[1]), sum(buckets[2]), sum(buckets[3]), sum(buckets[4]), sum(buckets[5]),
             sum(buckets[6]), sum(buckets[7])]::bigint[] AS buckets
FROM ingestd.job_stats
WHERE minute > now() - make_interval(mins => $1)
  AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR kind = $3)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
