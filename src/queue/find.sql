-- One job wherever it is: live by its key, dead by its key, history by its index on id in each
-- partition.
SELECT id, kind, queue, state, priority, attempt, max_attempts, run_id, tenant,
       last_error AS error, created_at, run_at, started_at, NULL::timestamptz AS finished_at,
       args, unique_key, gate_key, meta, crashes, cancel_requested,
       NULL::text AS reason, NULL::bigint AS fingerprint,
       CASE WHEN meta ->> 'replayed_from' ~ '^[0-9]{1,18}$'
            THEN (meta ->> 'replayed_from')::bigint END AS replayed_from,
       NULL::bigint AS replayed_to, NULL::jsonb AS output
FROM ingestd.jobs WHERE shard = 0 AND id = $1
UNION ALL
SELECT id, kind, queue, state, priority, attempt, NULL, run_id, tenant,
       NULL, created_at, run_at, started_at, finished_at,
       args, NULL, NULL, NULL, 0::smallint, state = 'cancelled', NULL, NULL, NULL, NULL, output
FROM ingestd.job_history WHERE id = $1
UNION ALL
SELECT id, kind, queue, 'dead', priority, attempt, max_attempts, run_id, tenant,
       error, created_at, NULL, NULL, died_at,
       args, unique_key, gate_key, meta, crashes, false, reason, fingerprint,
       replayed_from, replayed_to, NULL
FROM ingestd.dead_jobs WHERE shard = 0 AND id = $1
