-- Groups of dead letters that nobody replayed, the largest first.
-- $1 kind, or '' for all; $2 kind, or null for all; $3 groups to look for, $4 rows; $5 to $8 count,
-- last death, kind and fingerprint of the last group seen, or nulls.
-- The walk jumps from group to group in dead_jobs_group, one descent each, however large they are;
-- the count stops at 10,001 entries; first and last are the ends of dead_jobs_group_time. With $1
-- beside $2 the walk begins at the kind, under a plan for any value too.
WITH RECURSIVE walk AS (
  (SELECT kind, fingerprint FROM ingestd.dead_jobs
   WHERE replayed_at IS NULL AND kind >= $1 AND ($2::text IS NULL OR kind = $2)
   ORDER BY kind, fingerprint LIMIT 1)
  UNION ALL
  SELECT next.kind, next.fingerprint FROM walk CROSS JOIN LATERAL (
    SELECT d.kind, d.fingerprint FROM ingestd.dead_jobs d
    WHERE d.replayed_at IS NULL AND (d.kind, d.fingerprint) > (walk.kind, walk.fingerprint)
    ORDER BY d.kind, d.fingerprint LIMIT 1) next
  WHERE $2::text IS NULL OR next.kind = $2
),
found AS MATERIALIZED (SELECT kind, fingerprint FROM walk LIMIT $3)
SELECT f.kind, f.fingerprint, counted.n_letters, first.died_at AS first_died_at,
       last.died_at AS last_died_at, newest.id AS example_id, newest.error AS example_error
FROM found f
CROSS JOIN LATERAL (
  SELECT count(*) AS n_letters FROM (
    SELECT FROM ingestd.dead_jobs d
    WHERE d.replayed_at IS NULL AND d.kind = f.kind AND d.fingerprint = f.fingerprint
    LIMIT 10001) capped) counted
CROSS JOIN LATERAL (
  SELECT d.died_at FROM ingestd.dead_jobs d
  WHERE d.replayed_at IS NULL AND d.kind = f.kind AND d.fingerprint = f.fingerprint
  ORDER BY d.died_at LIMIT 1) first
CROSS JOIN LATERAL (
  SELECT d.died_at FROM ingestd.dead_jobs d
  WHERE d.replayed_at IS NULL AND d.kind = f.kind AND d.fingerprint = f.fingerprint
  ORDER BY d.died_at DESC LIMIT 1) last
CROSS JOIN LATERAL (
  SELECT d.id, left(d.error, 1000) AS error FROM ingestd.dead_jobs d
  WHERE d.replayed_at IS NULL AND d.kind = f.kind AND d.fingerprint = f.fingerprint
  ORDER BY d.id DESC LIMIT 1) newest
WHERE $5::bigint IS NULL
   OR (counted.n_letters, last.died_at, f.kind, f.fingerprint)
      < ($5, $6::timestamptz, $7::text, $8::bigint)
ORDER BY counted.n_letters DESC, last.died_at DESC, f.kind DESC, f.fingerprint DESC
LIMIT $4
