-- Each job leased in its row.
UPDATE ingestd.jobs j
SET state = 'running', lease_id = nextval('ingestd.lease_seq'), worker_id = $5,
    attempt = j.attempt + 1, started_at = clock_timestamp(), cancel_requested = false,
    deadline_at = clock_timestamp() + ($7::interval[])[array_position($6, j.kind)]
WHERE j.shard = 0 AND j.id = ANY (ARRAY(
  SELECT id FROM first UNION ALL SELECT id FROM second
  UNION ALL SELECT id FROM third UNION ALL SELECT id FROM fourth))
RETURNING j.id, j.lease_id, j.kind, j.priority, j.args, j.attempt, j.crashes, j.max_attempts,
          j.run_id, j.tenant, j.gate_key, j.origin_id, j.run_at, j.created_at, j.started_at,
          NULL::bigint AS batch_id, (SELECT oldest FROM leased) AS batches_since
