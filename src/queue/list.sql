-- Jobs wherever they are, newest first, one page.
-- $1 queue, $2 kind, $3 state, $4 before this id (never null: with an OR it would be a filter and
-- no index condition), $5 rows, $6 owners.
-- Each branch walks its table's index on id from the end and stops at the page's size; what the
-- state rules out is not read at all, for a condition on $3 alone is decided before the scan.
SELECT * FROM (
  (SELECT id, kind, queue, state, priority, attempt, max_attempts, run_id, tenant,
          left(last_error, 1000) AS error, created_at, run_at, started_at,
          NULL::timestamptz AS finished_at
   FROM ingestd.jobs
   WHERE shard = 0
     AND ($3::text IS NULL OR $3 IN ('queued', 'held', 'running'))
     AND ($3::text IS NULL OR state = $3)
     AND ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR kind = $2)
     AND ($6::text[] IS NULL OR coalesce(tenant, 'default') = ANY ($6))
     AND id < $4
   ORDER BY id DESC LIMIT $5)
  UNION ALL
  (SELECT id, kind, queue, state, priority, attempt, NULL, run_id, tenant,
          NULL, created_at, run_at, started_at, finished_at
   FROM ingestd.job_history
   WHERE ($3::text IS NULL OR $3 IN ('completed', 'cancelled'))
     AND ($3::text IS NULL OR state = $3)
     AND ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR kind = $2)
     AND ($6::text[] IS NULL OR coalesce(tenant, 'default') = ANY ($6))
     AND id < $4
   ORDER BY id DESC LIMIT $5)
  UNION ALL
  (SELECT id, kind, queue, 'dead', priority, attempt, max_attempts, run_id, tenant,
          left(error, 1000), created_at, NULL, NULL, died_at
   FROM ingestd.dead_jobs
   WHERE shard = 0
     AND ($3::text IS NULL OR $3 = 'dead')
     AND ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR kind = $2)
     AND ($6::text[] IS NULL OR coalesce(tenant, 'default') = ANY ($6))
     AND id < $4
   ORDER BY id DESC LIMIT $5)
) found
ORDER BY id DESC LIMIT $5
