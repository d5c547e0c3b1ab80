-- Inserts the jobs of past ticks and notes each tick as backfilled with its job. The caller holds
-- the schedule's row lock and has left out the ticks that are jobs already.
--   $1 schedule  $2 kind  $3 args  $4 queue  $5 priority  $6 ticks, oldest first
--   $7 the same as text for meta  $8 milliseconds from one job's due time to the next  $9 actor
--   $10 owner
-- Plan: one insert of jobs, one of ticks by primary key.
WITH made AS (
  INSERT INTO ingestd.jobs (kind, args, queue, priority, tenant, run_at, meta)
  SELECT $2, $3, $4, coalesce($5, 1), $10, now() + (n - 1) * $8 * interval '1 millisecond',
         jsonb_build_object('schedule', $1, 'tick_at', at, 'source', 'backfill', 'backfill', true,
                            'enqueued_by', $9)
  FROM unnest($7::text[]) WITH ORDINALITY t (at, n) ORDER BY n
  RETURNING id, (meta->>'tick_at')::timestamptz AS tick_at)
INSERT INTO ingestd.schedule_ticks AS t (schedule, tick_at, result, job_id)
SELECT $1, m.tick_at, 'backfilled', m.id FROM made m WHERE m.tick_at = ANY ($6)
ON CONFLICT (schedule, tick_at) DO UPDATE
SET result = 'backfilled', job_id = excluded.job_id, handled_at = now(), error = NULL
WHERE t.job_id IS NULL
RETURNING t.job_id
