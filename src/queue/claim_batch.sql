,
-- One row of batch_leases for all that may take as long: the rows of the jobs stay as they are,
-- locked to the end of the claim so that whoever changes one waits for it. Not those that a gate, a
-- run or a suspicion counts by its state, nor those that had a lease before, and none while a worker
-- is alive that does not know of batches.
found AS MATERIALIZED (
  SELECT *, gate_key IS NULL AND run_id IS NULL AND crashes = 0 AND last_lease_id IS NULL
    AND NOT EXISTS (SELECT FROM ingestd.workers WHERE ended_at IS NULL AND NOT knows_batches)
    AS in_batch
  FROM (
    SELECT * FROM first UNION ALL SELECT * FROM second
    UNION ALL SELECT * FROM third UNION ALL SELECT * FROM fourth) f
),
together AS MATERIALIZED (
  SELECT *, nextval('ingestd.lease_seq') AS lease_id,
         ($7::interval[])[array_position($6, kind)] AS time_limit
  FROM found WHERE in_batch
),
batch AS (
  INSERT INTO ingestd.batch_leases (worker_id, queue, job_ids, lease_ids, time_limit)
  SELECT $5, $1, array_agg(id), array_agg(lease_id), time_limit FROM together GROUP BY time_limit
  RETURNING id, started_at, time_limit
),
one_by_one AS (
  UPDATE ingestd.jobs j
  SET state = 'running', lease_id = nextval('ingestd.lease_seq'), worker_id = $5,
      attempt = j.attempt + 1, started_at = clock_timestamp(), cancel_requested = false,
      deadline_at = clock_timestamp() + ($7::interval[])[array_position($6, j.kind)]
  WHERE j.shard = 0 AND j.id = ANY (ARRAY(SELECT id FROM found WHERE NOT in_batch))
  RETURNING j.id, j.lease_id, j.kind, j.priority, j.args, j.attempt, j.crashes, j.max_attempts,
            j.run_id, j.tenant, j.gate_key, j.origin_id, j.run_at, j.created_at, j.started_at
)
SELECT *, NULL::bigint AS batch_id, (SELECT oldest FROM leased) AS batches_since FROM one_by_one
UNION ALL
SELECT t.id, t.lease_id, t.kind, t.priority, t.args, (t.attempt + 1)::smallint, t.crashes,
       t.max_attempts, t.run_id, t.tenant, t.gate_key, t.origin_id, t.run_at, t.created_at,
       b.started_at, b.id, coalesce((SELECT oldest FROM leased), (SELECT min(id) FROM batch))
FROM batch b JOIN together t ON t.time_limit = b.time_limit
