-- Where in fair queue $1 the next due job without a tenant lies that somebody here can run (kinds $5):
-- for each priority of $2, looked for after the row ($3, $4) among the next 5,000 that are due.
-- No row of a priority: there is none up to its end.
-- One possible plan: an ordered scan of jobs_ready that begins after that row and stops at the first
-- such job, or at its LIMIT.
SELECT p.priority, f.run_at, f.id, f.is_it
FROM unnest($2::smallint[]) WITH ORDINALITY AS p (priority, n)
CROSS JOIN LATERAL (
  SELECT run_at, id, is_it FROM (
    SELECT run_at, id, tenant IS NULL AND kind = ANY ($5) AS is_it,
           row_number() OVER (ORDER BY run_at, id) AS n
    FROM (
      SELECT run_at, id, tenant, kind FROM ingestd.jobs
      WHERE shard = 0 AND queue = $1 AND priority = p.priority AND state = 'queued'
        AND run_at <= now()
        AND (run_at, id) > (coalesce(($3::timestamptz[])[p.n], '-infinity'),
                            coalesce(($4::bigint[])[p.n], 0))
      ORDER BY run_at, id LIMIT 5000) AS stretch) AS counted
  WHERE is_it OR n = 5000
  ORDER BY run_at, id LIMIT 1) AS f
