-- Schedules in full: whose they are, two kinds of pause, ticks made by people.
--
-- One rule says who wins: a user's schedule before one of the configuration, that before a built-in
-- one. A row belongs to its origin, and only its owner changes what it says; a pause belongs to
-- people and stays whatever the owner does.

ALTER TABLE ingestd.schedules
  ADD COLUMN config_set       text,
  ADD COLUMN paused_in_config boolean NOT NULL DEFAULT false,
  ADD COLUMN shadows_set      text;
COMMENT ON COLUMN ingestd.schedules.origin IS 'Who owns the row: user (command line, HTTP, SQL), config (a daemon''s [schedules]), built_in (a kind''s code). A user''s stands before config, config before built_in; only the owner changes or removes it.';
COMMENT ON COLUMN ingestd.schedules.config_set IS 'Of origin config: the queue.schedule_set of the daemons whose files it equals; the one that started last wins. Null otherwise.';
COMMENT ON COLUMN ingestd.schedules.paused_in_config IS 'The configuration pauses it; only the configuration lets it go on.';
COMMENT ON COLUMN ingestd.schedules.paused_at IS 'Set while a person pauses it: ticks pass without a job. No daemon changes it. It also stands still while paused_in_config.';
COMMENT ON COLUMN ingestd.schedules.shadows_set IS 'The set whose configuration has a schedule of this name, which is not in force because this row was here first.';
COMMENT ON COLUMN ingestd.schedules.jitter_ms IS 'Each job is due up to this many milliseconds after its tick; how many is drawn from name and tick, so it is the same for everybody who asks.';
COMMENT ON COLUMN ingestd.schedules.next_at IS 'The next due time; null: to be computed from now on. Changing cron or timezone, pausing and resuming make it null.';

ALTER TABLE ingestd.schedule_ticks
  DROP CONSTRAINT schedule_ticks_result_check,
  DROP CONSTRAINT enqueued_has_a_job,
  ADD COLUMN error text,
  ADD CONSTRAINT result_is_known
    CHECK (result IN ('enqueued', 'missed', 'overlap', 'failed', 'backfilled', 'by_hand')),
  ADD CONSTRAINT enqueued_has_a_job
    CHECK ((result IN ('enqueued', 'backfilled', 'by_hand')) = (job_id IS NOT NULL));
COMMENT ON COLUMN ingestd.schedule_ticks.tick_at IS 'The due time; of by_hand, when somebody asked for the job.';
COMMENT ON COLUMN ingestd.schedule_ticks.result IS 'enqueued, or why not: missed (policy), overlap (policy), failed. backfilled: somebody had it made up for. by_hand: no tick, a job that somebody wanted at once.';
COMMENT ON COLUMN ingestd.schedule_ticks.error IS 'Of failed: why its job could not be inserted.';

-- What follows from a line is computed anew when the line changes, whoever changes it and in
-- whatever way; a statement that sets next_at itself is left alone.
CREATE FUNCTION ingestd.forget_next_tick() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.next_at := NULL;
  NEW.last_error := NULL;
  RETURN NEW;
END$$;
COMMENT ON FUNCTION ingestd.forget_next_tick() IS 'Lets a schedule whose line or pause changed go on with the first tick after now.';

CREATE TRIGGER forget_next_tick
  BEFORE UPDATE OF cron, timezone, paused_at, paused_in_config ON ingestd.schedules
  FOR EACH ROW WHEN (
    NEW.next_at IS NOT DISTINCT FROM OLD.next_at
    AND (OLD.cron, OLD.timezone, OLD.paused_at IS NULL, OLD.paused_in_config)
        IS DISTINCT FROM (NEW.cron, NEW.timezone, NEW.paused_at IS NULL, NEW.paused_in_config))
  EXECUTE FUNCTION ingestd.forget_next_tick();
