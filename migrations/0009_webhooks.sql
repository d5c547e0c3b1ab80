-- Webhooks: whoever wants to be told that a job or run ended, is. The delivery's job is inserted by
-- the statement that ends the job or run, so none is lost by a crash and none invented.
--
-- Triggers, not a part of each statement: jobs and runs end in a dozen statements, of old binaries
-- and of SQL users too, and one that forgot would be noticed by nobody. Measured on completions,
-- 500 and 1 a statement: without a webhook the trigger and its transition table cost less than the
-- noise of a process's CPU time (6.2 µs a job with, 6.5 without), one index page is read.

ALTER TABLE ingestd.webhooks
  ADD COLUMN kinds        text[] CHECK (cardinality(kinds) BETWEEN 1 AND 100),
  ADD COLUMN queues       text[] CHECK (cardinality(queues) BETWEEN 1 AND 100),
  ADD COLUMN pause_reason text,
  ADD CONSTRAINT events_are_known CHECK (events <@ ARRAY[
    'job.completed', 'job.dead', 'job.cancelled',
    'run.completed', 'run.failed', 'run.cancelled']),
  ADD CONSTRAINT url_is_1_to_4096_bytes CHECK (octet_length(url) BETWEEN 1 AND 4096),
  ADD CONSTRAINT secret_ref_is_a_plain_name
    CHECK (secret_ref ~ '^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$'),
  ADD CONSTRAINT paused_for_a_reason CHECK ((paused_at IS NULL) = (pause_reason IS NULL));
UPDATE ingestd.webhooks SET secret_ref = 'webhook-' || id WHERE secret_ref IS NULL;
ALTER TABLE ingestd.webhooks ALTER COLUMN secret_ref SET NOT NULL;
COMMENT ON COLUMN ingestd.webhooks.tenant IS 'Owner of the data it tells of; jobs without a tenant are default''s.';
COMMENT ON COLUMN ingestd.webhooks.events IS 'job.completed, job.dead, job.cancelled, run.completed, run.failed, run.cancelled.';
COMMENT ON COLUMN ingestd.webhooks.secret_ref IS 'File of the secret''s name in webhooks.secrets_dir; never the secret.';
COMMENT ON COLUMN ingestd.webhooks.kinds IS 'Only jobs of these kinds, and runs that such a job drives; system.* stands for all of a system. Null: all.';
COMMENT ON COLUMN ingestd.webhooks.queues IS 'Only jobs of these queues; runs are in none. Null: all.';
COMMENT ON COLUMN ingestd.webhooks.paused_at IS 'Set while paused: what happens then is not told, and deliveries that wait are tried later.';
COMMENT ON COLUMN ingestd.webhooks.pause_reason IS 'Why: a person did, or the endpoint said that it is gone.';
COMMENT ON CONSTRAINT paused_for_a_reason ON ingestd.webhooks IS 'A pause says why.';

-- Sessions of the queue read no table without an index.
CREATE INDEX webhooks_live ON ingestd.webhooks (tenant) WHERE paused_at IS NULL;
COMMENT ON INDEX ingestd.webhooks_live IS 'Whether there are any, and those of a tenant.';

CREATE TABLE ingestd.webhook_deliveries (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  webhook_id  bigint NOT NULL REFERENCES ingestd.webhooks ON DELETE CASCADE,
  message     text NOT NULL,
  event       text NOT NULL,
  job_id      bigint NOT NULL,
  attempt     smallint NOT NULL,
  status      smallint,
  error       text,
  duration_ms integer NOT NULL CHECK (duration_ms >= 0),
  at          timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE  ingestd.webhook_deliveries IS 'What came of the last deliveries of each webhook, one row an attempt; the oldest go as new ones come.';
COMMENT ON COLUMN ingestd.webhook_deliveries.id IS 'Order of the attempts.';
COMMENT ON COLUMN ingestd.webhook_deliveries.webhook_id IS 'The webhook, ingestd.webhooks.id.';
COMMENT ON COLUMN ingestd.webhook_deliveries.message IS 'The header webhook-id: the same at every attempt.';
COMMENT ON COLUMN ingestd.webhook_deliveries.event IS 'What it told of.';
COMMENT ON COLUMN ingestd.webhook_deliveries.job_id IS 'The job that delivers it.';
COMMENT ON COLUMN ingestd.webhook_deliveries.attempt IS 'Which attempt of that job, from 1.';
COMMENT ON COLUMN ingestd.webhook_deliveries.status IS 'The answer''s HTTP status; null: no answer.';
COMMENT ON COLUMN ingestd.webhook_deliveries.error IS 'Why it was not delivered; null: it was.';
COMMENT ON COLUMN ingestd.webhook_deliveries.duration_ms IS 'How long it took, in milliseconds.';
COMMENT ON COLUMN ingestd.webhook_deliveries.at IS 'When the attempt ended.';
CREATE INDEX webhook_deliveries_webhook ON ingestd.webhook_deliveries (webhook_id, id);
COMMENT ON INDEX ingestd.webhook_deliveries_webhook IS 'The last attempts of a webhook.';

-- Else the first job to end after a webhook was added would fail for want of the kind.
INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
VALUES ('system.webhook', 'webhooks', 10, 60) ON CONFLICT (kind) DO NOTHING;

CREATE FUNCTION ingestd.webhook_takes(kinds text[], kind text, system text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
  SELECT kinds IS NULL OR coalesce(kind = ANY (kinds), false) OR system || '.*' = ANY (kinds)
$$;
COMMENT ON FUNCTION ingestd.webhook_takes(text[], text, text) IS 'Whether a webhook''s kinds cover a kind, by its name or by its system''s.';

-- ── jobs ────────────────────────────────────────────────────────────────────

CREATE FUNCTION ingestd.tell_of_finished_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ingestd.webhooks WHERE paused_at IS NULL) THEN
    RETURN NULL;
  END IF;
  INSERT INTO ingestd.jobs (kind, queue, tenant, gate_key, args)
  SELECT 'system.webhook', 'webhooks', w.tenant, 'webhook:' || w.id, jsonb_build_object(
    'webhook', w.id, 'message', format('msg_job_%s_%s', e.id, e.state),
    'type', 'job.' || e.state, 'timestamp', e.finished_at,
    'data', jsonb_build_object('job', jsonb_build_object(
      'id', e.id, 'kind', e.kind, 'queue', e.queue, 'state', e.state, 'priority', e.priority,
      'attempt', e.attempt, 'run_id', e.run_id, 'tenant', w.tenant, 'created_at', e.created_at,
      'started_at', e.started_at, 'finished_at', e.finished_at)))
  FROM ended e JOIN ingestd.webhooks w
    ON w.tenant = coalesce(e.tenant, 'default') AND w.paused_at IS NULL
  WHERE e.kind <> 'system.webhook' AND 'job.' || e.state = ANY (w.events)
    AND (w.queues IS NULL OR e.queue = ANY (w.queues))
    AND ingestd.webhook_takes(w.kinds, e.kind, split_part(e.kind, '.', 1));
  RETURN NULL;
END$$;
COMMENT ON FUNCTION ingestd.tell_of_finished_jobs() IS 'Enqueues the deliveries that completed and cancelled jobs are worth; those of deliveries are worth none.';

CREATE TRIGGER tell_of_finished_jobs AFTER INSERT ON ingestd.job_history
  REFERENCING NEW TABLE AS ended FOR EACH STATEMENT EXECUTE FUNCTION ingestd.tell_of_finished_jobs();

CREATE FUNCTION ingestd.tell_of_dead_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ingestd.webhooks WHERE paused_at IS NULL) THEN
    RETURN NULL;
  END IF;
  INSERT INTO ingestd.jobs (kind, queue, tenant, gate_key, args)
  SELECT 'system.webhook', 'webhooks', w.tenant, 'webhook:' || w.id, jsonb_build_object(
    'webhook', w.id, 'message', format('msg_job_%s_dead', e.id),
    'type', 'job.dead', 'timestamp', e.died_at,
    'data', jsonb_build_object('job', jsonb_build_object(
      'id', e.id, 'kind', e.kind, 'queue', e.queue, 'state', 'dead', 'priority', e.priority,
      'attempt', e.attempt, 'crashes', e.crashes, 'reason', e.reason, 'error', left(e.error, 2000),
      'run_id', e.run_id, 'tenant', w.tenant, 'created_at', e.created_at,
      'finished_at', e.died_at)))
  FROM died e JOIN ingestd.webhooks w
    ON w.tenant = coalesce(e.tenant, 'default') AND w.paused_at IS NULL
  WHERE e.kind <> 'system.webhook' AND 'job.dead' = ANY (w.events)
    AND (w.queues IS NULL OR e.queue = ANY (w.queues))
    AND ingestd.webhook_takes(w.kinds, e.kind, split_part(e.kind, '.', 1));
  RETURN NULL;
END$$;
COMMENT ON FUNCTION ingestd.tell_of_dead_jobs() IS 'Enqueues the deliveries that dead letters are worth; those of deliveries are worth none.';

CREATE TRIGGER tell_of_dead_jobs AFTER INSERT ON ingestd.dead_jobs
  REFERENCING NEW TABLE AS died FOR EACH STATEMENT EXECUTE FUNCTION ingestd.tell_of_dead_jobs();

-- ── runs ────────────────────────────────────────────────────────────────────

CREATE FUNCTION ingestd.tell_of_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- A run may end again after a reset: when it did is part of the message's name.
  INSERT INTO ingestd.jobs (kind, queue, tenant, gate_key, args)
  SELECT 'system.webhook', 'webhooks', w.tenant, 'webhook:' || w.id, jsonb_build_object(
    'webhook', w.id, 'message', format('msg_run_%s_%s_%s', NEW.id, NEW.state,
      (extract(epoch FROM NEW.finished_at) * 1000000)::bigint),
    'type', 'run.' || NEW.state, 'timestamp', NEW.finished_at,
    'data', jsonb_build_object('run', jsonb_build_object(
      'id', NEW.id, 'system', NEW.system, 'state', NEW.state, 'tenant', NEW.tenant,
      'triggered_by', NEW.triggered_by, 'items_total', NEW.items_total, 'items_ok', NEW.items_ok,
      'items_failed', NEW.items_failed, 'items_skipped', NEW.items_skipped,
      'error', left(NEW.error, 2000), 'created_at', NEW.created_at,
      'started_at', NEW.started_at, 'finished_at', NEW.finished_at)))
  FROM ingestd.webhooks w
  WHERE w.tenant = NEW.tenant AND w.paused_at IS NULL AND 'run.' || NEW.state = ANY (w.events)
    AND ingestd.webhook_takes(w.kinds, NEW.job_kind, NEW.system);
  RETURN NULL;
END$$;
COMMENT ON FUNCTION ingestd.tell_of_run() IS 'Enqueues the deliveries that the end of a run is worth.';

CREATE TRIGGER tell_of_run AFTER UPDATE OF state ON ingestd.runs
  FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL AND OLD.state <> NEW.state)
  EXECUTE FUNCTION ingestd.tell_of_run();
