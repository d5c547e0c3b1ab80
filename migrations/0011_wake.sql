-- Wake-ups decided at the commit, and no transition table on the way of a bulk insert.

-- ── before a row: its queue and its kind ────────────────────────────────────

CREATE OR REPLACE FUNCTION ingestd.fill_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.queue IS NULL THEN
    SELECT queue INTO NEW.queue FROM ingestd.job_kinds WHERE kind = NEW.kind;
    IF NOT FOUND THEN PERFORM ingestd.refuse_kind(NEW.kind); END IF;
  ELSIF NOT EXISTS (SELECT FROM ingestd.job_kinds WHERE kind = NEW.kind) THEN
    PERFORM ingestd.refuse_kind(NEW.kind);
  END IF;
  PERFORM set_config('ingestd.kind', NEW.kind, false);
  RETURN NEW;
END$$;
COMMENT ON FUNCTION ingestd.fill_queue() IS 'Gives a job without a queue its kind''s, and refuses a kind that nobody registered. What it found stands in the session''s setting ingestd.kind, so that the next job of the kind pays for a look at that.';

-- A WHEN is parsed anew by every statement, about a microsecond a word: these are short.
CREATE OR REPLACE TRIGGER fill_queue BEFORE INSERT ON ingestd.jobs
  FOR EACH ROW WHEN (NEW.queue IS NULL OR current_setting('ingestd.kind', true) IS DISTINCT FROM NEW.kind)
  EXECUTE FUNCTION ingestd.fill_queue();

-- ── at the commit: one notification per queue ───────────────────────────────

-- A hint, never the truth: without it the poll finds the job. NOTIFY holds a lock of the whole
-- server across the commit's flush; the try-lock keeps inserters from queueing for it, and whoever
-- misses it relies on the notified worker's trailing look. It is taken when everything else of the
-- transaction is done: taken by the statement, it would silence everybody else for as long as its
-- transaction goes on. A full notification queue would fail the transaction.
CREATE FUNCTION ingestd.wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_notification_queue_usage() < 0.5
     AND pg_try_advisory_xact_lock(1229866835, hashtext(NEW.queue)) THEN
    PERFORM pg_notify('ingestd_wake', NEW.queue);
  END IF;
  RETURN NULL;
END$$;
COMMENT ON FUNCTION ingestd.wake() IS 'Wakes the workers of a queue, unless somebody else is about to.';

-- Of a run of due rows for one queue the first alone is kept for the commit, however many rows and
-- statements it has: the WHEN is decided as the row is inserted, and leaves a mark that ends with
-- the transaction or the savepoint.
CREATE CONSTRAINT TRIGGER wake AFTER INSERT ON ingestd.jobs
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (current_setting('ingestd.woken', true) IS DISTINCT FROM NEW.queue AND NEW.run_at <= now()
        AND set_config('ingestd.woken', NEW.queue, true) IS NOT NULL)
  EXECUTE FUNCTION ingestd.wake();

DROP TRIGGER after_enqueue ON ingestd.jobs;
DROP FUNCTION ingestd.after_enqueue();
