-- What decides whether one unfinished job runs: its row, its worker, its queue, who could take it.
-- $1 id, $2 most jobs to count.
-- All by primary key or by small partial indexes: the live workers, the running jobs, the
-- suspects. What is ahead in the queue is counted priority by priority, as a claim looks, so that
-- future jobs are not walked over.
WITH job AS MATERIALIZED (
  SELECT j.*, k.max_attempts AS kind_attempts, k.seen_at
  FROM ingestd.jobs j LEFT JOIN ingestd.job_kinds k ON k.kind = j.kind
  WHERE j.shard = 0 AND j.id = $1
),
live AS MATERIALIZED (
  -- A worker's row begins anew after every lost heartbeat; its process registered its kinds once.
  SELECT w.queues, w.slots, w.heartbeat_at, (
    SELECT min(o.started_at) FROM ingestd.workers o
    WHERE o.host = w.host AND o.place IS NOT DISTINCT FROM w.place AND o.pid = w.pid) AS began_at
  FROM ingestd.workers w
  WHERE w.ended_at IS NULL AND w.heartbeat_at > now() - interval '30 s'
)
SELECT clock_timestamp() AS now, job.state, job.kind, job.queue, job.attempt, job.crashes,
       job.run_at, job.started_at, job.deadline_at, job.cancel_requested, job.gate_key,
       coalesce(job.max_attempts, job.kind_attempts) AS max_attempts,
       left(job.last_error, 200) AS last_error,
       job.worker_id, w.host AS worker_host, w.pid AS worker_pid,
       w.heartbeat_at AS worker_heartbeat_at, w.ended_at IS NOT NULL AS worker_ended,
       q.paused_at AS queue_paused_at, q.max_running AS queue_max_running,
       (SELECT count(*) FROM (
          SELECT FROM ingestd.jobs r
          WHERE r.shard = 0 AND r.state = 'running' AND r.queue = job.queue LIMIT $2) c) AS n_running,
       (SELECT count(*) FROM live) AS n_workers,
       (SELECT count(*) FROM live WHERE slots ? job.queue OR slots IS NULL AND job.queue = ANY (queues))
         AS n_workers_of_queue,
       -- What the heartbeats told of its slots; an older version tells nothing.
       coalesce((SELECT bool_and(slots IS NOT NULL) FROM live), false) AS is_told,
       coalesce((SELECT sum((slots -> job.queue ->> 0)::bigint)::bigint FROM live), 0) AS n_slots,
       coalesce((SELECT sum((slots -> job.queue ->> 1)::bigint)::bigint FROM live), 0) AS n_taken,
       (SELECT min(heartbeat_at) FROM live WHERE slots ? job.queue) AS told_at,
       EXISTS (SELECT FROM live WHERE job.seen_at >= began_at - interval '5 min') AS is_kind_known,
       EXISTS (SELECT FROM ingestd.jobs s
               WHERE s.shard = 0 AND s.state IN ('queued', 'running') AND s.crashes >= 2)
         AS is_suspect_out,
       (SELECT count(*) FROM (
          SELECT FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
            SELECT FROM ingestd.jobs a
            WHERE a.shard = 0 AND a.queue = job.queue AND a.priority = p.priority
              AND a.state = 'queued' AND a.run_at <= now()
              AND (p.priority < job.priority OR (a.run_at, a.id) < (job.run_at, job.id))
            ORDER BY a.run_at, a.id LIMIT $2) ahead
          WHERE p.priority <= job.priority LIMIT $2) c) AS n_ahead
FROM job
LEFT JOIN ingestd.workers w ON w.id = job.worker_id
LEFT JOIN ingestd.queues q ON q.queue = job.queue
