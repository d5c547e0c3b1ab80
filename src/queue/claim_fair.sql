-- Claims up to $2 due jobs of queue $1 as claim.sql does, but the tenants take turns: within a
-- priority the first job of each, then the second of each, beginning after tenant $9 and going
-- round.
-- A loose scan of jobs_turn finds up to 64 tenants on either side of $9, one probe each, and of each
-- its first jobs: what one tenant has waiting costs the others nothing. Jobs without a tenant are
-- one tenant more, the first of all; it is they alone that are looked for among 1000 due jobs: those
-- after the row ($4, $10) of the priority, which nobody.sql puts before the next of them.
-- The transaction holds the queue's lock, so nobody else claims what is chosen here. It is locked
-- by key all the same, for people may change it; the state is compared so that no index of it fits.
WITH leased AS MATERIALIZED (SELECT ids FROM ingestd.leased($1, 0)),
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
ring AS MATERIALIZED (
  SELECT p.turn, p.priority, t.tenant, t.place
  FROM unnest($3::smallint[]) WITH ORDINALITY AS p (priority, turn)
  CROSS JOIN LATERAL (
    (WITH RECURSIVE after (tenant, n) AS (
       (SELECT tenant, 1 FROM ingestd.jobs
        WHERE shard = 0 AND queue = $1 AND priority = p.priority AND state = 'queued'
          AND tenant > $9 ORDER BY tenant LIMIT 1)
       UNION ALL
       SELECT (SELECT j.tenant FROM ingestd.jobs j
               WHERE j.shard = 0 AND j.queue = $1 AND j.priority = p.priority
                 AND j.state = 'queued' AND j.tenant > a.tenant ORDER BY j.tenant LIMIT 1), a.n + 1
       FROM after a WHERE a.tenant IS NOT NULL AND a.n < 64)
     SELECT tenant, n AS place FROM after WHERE tenant IS NOT NULL)
    UNION ALL
    (WITH RECURSIVE before (tenant, n) AS (
       (SELECT tenant, 101 FROM ingestd.jobs
        WHERE shard = 0 AND queue = $1 AND priority = p.priority AND state = 'queued'
          AND tenant <= $9 ORDER BY tenant LIMIT 1)
       UNION ALL
       SELECT (SELECT j.tenant FROM ingestd.jobs j
               WHERE j.shard = 0 AND j.queue = $1 AND j.priority = p.priority
                 AND j.state = 'queued' AND j.tenant > b.tenant AND j.tenant <= $9
               ORDER BY j.tenant LIMIT 1), b.n + 1
       FROM before b WHERE b.tenant IS NOT NULL AND b.n < 164)
     SELECT tenant, n FROM before WHERE tenant IS NOT NULL)
    UNION ALL
    SELECT NULL, 100) t
),
chosen AS MATERIALIZED (
  SELECT j.id, r.tenant, row_number() OVER (ORDER BY r.turn, j.rank, r.place) AS n
  FROM ring r
  CROSS JOIN LATERAL (
    SELECT id, row_number() OVER (ORDER BY run_at, id) AS rank FROM (
      (SELECT id, run_at FROM ingestd.jobs
       WHERE shard = 0 AND queue = $1 AND priority = r.priority AND state = 'queued'
         AND tenant = r.tenant AND run_at <= now() AND kind = ANY ($6)
       ORDER BY run_at, id LIMIT (SELECT n FROM open))
      UNION ALL
      (SELECT id, run_at FROM (
         SELECT id, run_at, tenant, kind FROM ingestd.jobs
         WHERE shard = 0 AND queue = $1 AND priority = r.priority AND state = 'queued'
           AND run_at <= now() AND r.tenant IS NULL
           AND (run_at, id) > (coalesce(($4::timestamptz[])[r.turn], '-infinity'),
                               coalesce(($10::bigint[])[r.turn], 0))
         ORDER BY run_at, id LIMIT 1000) longest
       WHERE tenant IS NULL AND kind = ANY ($6)
       ORDER BY run_at, id LIMIT (SELECT n FROM open))) first) j
  ORDER BY r.turn, j.rank, r.place
  LIMIT (SELECT n FROM open)
),
locked AS MATERIALIZED (
  SELECT id FROM ingestd.jobs
  WHERE shard = 0 AND id = ANY (ARRAY(SELECT id FROM chosen)) AND state || '' = 'queued'
    AND (((SELECT ids FROM leased))[width_bucket(id, (SELECT ids FROM leased))] IS DISTINCT FROM id
         OR last_lease_id IS NOT NULL)
  FOR UPDATE SKIP LOCKED
),
taken AS (
UPDATE ingestd.jobs j
SET state = 'running', lease_id = nextval('ingestd.lease_seq'), worker_id = $5,
    attempt = j.attempt + 1, started_at = clock_timestamp(), cancel_requested = false,
    deadline_at = clock_timestamp() + ($7::interval[])[array_position($6, j.kind)]
WHERE j.shard = 0 AND j.id = ANY (ARRAY(SELECT id FROM locked))
RETURNING j.id, j.lease_id, j.kind, j.priority, j.args, j.attempt, j.crashes,
          j.max_attempts, j.run_id, j.tenant, j.gate_key, j.origin_id, j.run_at, j.created_at, j.started_at
)
-- One row at least: how many could be taken is of interest where none is, too.
SELECT open.n AS n_open, taken.*,
       (SELECT n FROM chosen WHERE chosen.id = taken.id) AS place,
       (SELECT coalesce(tenant, '') FROM chosen ORDER BY n DESC LIMIT 1) AS last_tenant
FROM open LEFT JOIN taken ON true
