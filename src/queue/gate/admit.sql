-- Admits held jobs of the keys $1, whose locks this transaction holds: held becomes queued.
-- $2 kinds that somebody here can run, $3 most jobs of a key, $4 whether suspects are meant.
-- A statement of its own after the one that took the locks: its snapshot must see what the last
-- holder of each lock committed, else both would count the same slot as free.
--
-- Slots in use are the rows of a key that are not held (jobs_gated). What was admitted and may not
-- run now, because its queue or gate was paused or somebody moved it to later, goes back and frees its
-- slot. A rate is a bucket of tokens told by the time at which it will be full; a job takes its
-- token when it is admitted, and until it starts it takes up the room of one in the bucket, so that
-- starts do not bunch where workers were away: never more than the burst wait for theirs.
-- The four priorities are ordered scans of jobs_held, taken in turn by the nested loop over VALUES
-- until the LIMIT is met.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
paused AS MATERIALIZED (
  SELECT coalesce(array_agg(queue), '{}') AS queues FROM ingestd.queues WHERE paused_at IS NOT NULL
),
misplaced AS MATERIALIZED (
  SELECT j.id FROM unnest($1::text[]) AS k (key), LATERAL (
    SELECT id FROM ingestd.jobs
    WHERE shard = 0 AND gate_key = k.key AND state <> 'held' AND state = 'queued'
      AND (run_at > now() OR queue = ANY ((SELECT queues FROM paused)::text[])
           OR (SELECT g.paused FROM ingestd.gate_of(k.key) g))
    FOR UPDATE SKIP LOCKED) j
),
back AS (
  UPDATE ingestd.jobs SET state = 'held'
  WHERE shard = 0 AND id = ANY (ARRAY(SELECT id FROM misplaced))
  RETURNING gate_key
),
gate AS MATERIALIZED (
  SELECT k.key, t.full_at AS stored_full_at, g.pattern, g.max_running, g.rate_per_sec AS rate, g.burst, g.paused,
         used.n - n_back AS n_used, used.n_queued - n_back AS n_queued,
         -- Never further away than it takes an empty bucket to fill: the clock may have been set back.
         least(greatest(t.full_at, clock.at), clock.at + make_interval(secs => g.burst / g.rate_per_sec))
           AS full_at
  FROM clock, unnest($1::text[]) AS k (key)
  CROSS JOIN LATERAL ingestd.gate_of(k.key) g
  LEFT JOIN LATERAL (
    SELECT full_at FROM ingestd.gate_tokens
    WHERE gate_key = k.key AND g.rate_per_sec IS NOT NULL) t ON true
  CROSS JOIN LATERAL (
    SELECT count(*) AS n, count(*) FILTER (WHERE state = 'queued') AS n_queued
    FROM ingestd.jobs
    WHERE shard = 0 AND gate_key = k.key AND state <> 'held'
      AND (g.max_running IS NOT NULL OR g.rate_per_sec IS NOT NULL)) used
  CROSS JOIN LATERAL (SELECT count(*) AS n_back FROM back WHERE back.gate_key = k.key) b
),
room AS MATERIALIZED (
  SELECT key, pattern, rate, burst, level,
         -- Written down, or it would count as empty again at the next look, or as what it cannot hold.
         stored_full_at > full_at + interval '1 second' OR brought >= level + 1 AS is_to_note,
         CASE WHEN paused THEN 0
              ELSE greatest(least($3::bigint, max_running - n_used, tokens), 0) END AS n,
         NOT paused AND tokens < least($3::bigint, max_running - n_used) AS is_slow
  FROM gate
  CROSS JOIN LATERAL (
    SELECT burst - extract(epoch FROM full_at - (SELECT at FROM clock)) * rate AS brought) b
  -- Null without a rate: then tokens bound nothing.
  CROSS JOIN LATERAL (
    SELECT CASE WHEN rate IS NOT NULL
           THEN least(brought, greatest(burst - n_queued, 0)) END AS level) l
  CROSS JOIN LATERAL (SELECT floor(level + 0.001)::bigint AS tokens) t
),
picked AS MATERIALIZED (
  SELECT r.key, j.id FROM room r, LATERAL (
    SELECT next.id FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
      SELECT id FROM ingestd.jobs
      WHERE shard = 0 AND gate_key = r.key AND priority = p.priority AND state = 'held'
        AND run_at <= now() AND (crashes >= 2) = $4 AND kind = ANY ($2)
        AND queue <> ALL ((SELECT queues FROM paused)::text[])
      ORDER BY run_at, id LIMIT r.n FOR UPDATE SKIP LOCKED) next
    LIMIT r.n) j
  WHERE r.n > 0
),
taken AS MATERIALIZED (
  SELECT r.*, p.n AS n_picked
  FROM room r CROSS JOIN LATERAL (SELECT count(*) AS n FROM picked WHERE picked.key = r.key) p
),
spent AS (
  INSERT INTO ingestd.gate_tokens (gate_key, full_at)
  SELECT key, (SELECT at FROM clock) + make_interval(secs => (burst - level + n_picked) / rate)
  FROM taken WHERE rate IS NOT NULL AND (n_picked > 0 OR is_to_note)
  ON CONFLICT (gate_key) DO UPDATE SET full_at = excluded.full_at
),
admitted AS (
  UPDATE ingestd.jobs SET state = 'queued'
  WHERE shard = 0 AND id = ANY (ARRAY(SELECT id FROM picked))
  RETURNING gate_key, queue, run_at
)
SELECT key, pattern, n_picked = $3 AS has_more, n_picked < n AS has_room, NULL::text AS queue,
       NULL::double precision AS waited_secs, NULL::text AS woken,
       CASE WHEN is_slow AND n_picked = n
            THEN ceil(1000 * (1 - level + n) / rate)::bigint END AS next_ms
FROM taken
UNION ALL
SELECT gate_key, NULL, NULL, NULL, queue,
       extract(epoch FROM (SELECT at FROM clock) - run_at)::double precision,
       -- A hint to all daemons that something may be due since long; the same again is sent once.
       CASE WHEN pg_notification_queue_usage() < 0.5
                 AND pg_try_advisory_xact_lock(1229866835, hashtext(queue))
            THEN pg_notify('ingestd_look', queue)::text END, NULL
FROM admitted
