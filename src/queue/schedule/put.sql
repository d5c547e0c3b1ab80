-- Makes a schedule of the configuration ($13 its set, $14 its owner) equal its definition; touches nothing where
-- it does already, so that updated_at tells. Takes the place of a built-in one. A changed line
-- loses its next time by the trigger forget_next_tick; a person's pause is not mentioned and stays.
-- Plan: one insert by primary key.
INSERT INTO ingestd.schedules AS s
  (name, cron, timezone, kind, args, queue, priority, missed, missed_max, overlap, jitter_ms,
   paused_in_config, config_set, tenant, origin)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'config')
ON CONFLICT (name) DO UPDATE SET
  cron = excluded.cron, timezone = excluded.timezone, kind = excluded.kind, args = excluded.args,
  queue = excluded.queue, priority = excluded.priority, missed = excluded.missed,
  missed_max = excluded.missed_max, overlap = excluded.overlap, jitter_ms = excluded.jitter_ms,
  paused_in_config = excluded.paused_in_config, config_set = excluded.config_set,
  tenant = excluded.tenant, origin = excluded.origin, updated_at = now(),
  -- What was wrong may be right now; nothing else would look at a line marked as unreadable.
  last_error = NULL
WHERE (s.origin = 'built_in' OR (s.origin = 'config' AND s.config_set = excluded.config_set))
  AND (s.cron, s.timezone, s.kind, s.args, s.queue, s.priority, s.missed, s.missed_max, s.overlap,
       s.jitter_ms, s.paused_in_config, s.tenant, s.origin)
      IS DISTINCT FROM
      (excluded.cron, excluded.timezone, excluded.kind, excluded.args, excluded.queue,
       excluded.priority, excluded.missed, excluded.missed_max, excluded.overlap,
       excluded.jitter_ms, excluded.paused_in_config, excluded.tenant, excluded.origin)
