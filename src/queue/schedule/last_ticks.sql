-- The newest ticks of a schedule ($1) and where their jobs are now.
-- Plan: schedule_ticks by primary key, backwards; each job by its id in the three tables.
SELECT t.tick_at AS at, t.result, t.job_id,
       coalesce(j.state, d.state, h.state) AS job_state,
       left(coalesce(t.error, d.error, j.last_error), 1000) AS error
FROM (SELECT tick_at, result, job_id, error FROM ingestd.schedule_ticks
      WHERE schedule = $1 ORDER BY tick_at DESC LIMIT 10) t
LEFT JOIN ingestd.jobs j ON j.shard = 0 AND j.id = t.job_id
LEFT JOIN LATERAL (
  SELECT 'dead' AS state, error FROM ingestd.dead_jobs WHERE shard = 0 AND id = t.job_id) d ON true
LEFT JOIN LATERAL (
  SELECT state FROM ingestd.job_history WHERE id = t.job_id LIMIT 1) h ON true
ORDER BY t.tick_at DESC
