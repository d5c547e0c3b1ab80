-- Runs: one model of progress for every multi-item piece of ingestion. Tokens, audit, webhooks.

CREATE TABLE ingestd.runs (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  system        text NOT NULL,
  job_kind      text,
  state         text NOT NULL DEFAULT 'pending'
                CHECK (state IN ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  stage         text,
  tenant        text NOT NULL DEFAULT 'default',
  triggered_by  text NOT NULL,
  params        jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(params) = 'object'),
  cursor        jsonb,
  items_total   bigint CHECK (items_total >= 0),
  items_ok      bigint NOT NULL DEFAULT 0 CHECK (items_ok >= 0),
  items_failed  bigint NOT NULL DEFAULT 0 CHECK (items_failed >= 0),
  items_skipped bigint NOT NULL DEFAULT 0 CHECK (items_skipped >= 0),
  details       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
  error         text,
  error_detail  jsonb,
  retry_count   smallint NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
  created_at    timestamptz NOT NULL DEFAULT now(),
  started_at    timestamptz,
  heartbeat_at  timestamptz,
  finished_at   timestamptz,
  CONSTRAINT finished_when_final
    CHECK ((finished_at IS NULL) = (state IN ('pending', 'running', 'paused'))),
  CONSTRAINT running_has_a_heartbeat CHECK (state <> 'running' OR heartbeat_at IS NOT NULL)
) WITH (fillfactor = 70);
COMMENT ON TABLE  ingestd.runs IS 'One row per multi-item piece of ingestion: an import, a check round, a crawl.';
COMMENT ON COLUMN ingestd.runs.id IS 'Identifies the run.';
COMMENT ON COLUMN ingestd.runs.system IS 'The system it belongs to: product_import, product_check, …';
COMMENT ON COLUMN ingestd.runs.job_kind IS 'The kind of the one job that drives a batch run, with args {"run_id": id}; null for a fan-out.';
COMMENT ON COLUMN ingestd.runs.state IS 'pending: made, not begun. running: heartbeat within 15 minutes or it is stale. paused: waits for a person. completed, failed, cancelled: final.';
COMMENT ON COLUMN ingestd.runs.stage IS 'What it is doing, in the system''s own words.';
COMMENT ON COLUMN ingestd.runs.tenant IS 'Owner of the data.';
COMMENT ON COLUMN ingestd.runs.triggered_by IS 'Who or what started it: api, cli, schedule, dev.';
COMMENT ON COLUMN ingestd.runs.params IS 'What was asked for.';
COMMENT ON COLUMN ingestd.runs.cursor IS 'Where a batch run goes on after a crash; committed with the chunk it covers.';
COMMENT ON COLUMN ingestd.runs.items_total IS 'Items in all; null: not known yet.';
COMMENT ON COLUMN ingestd.runs.items_ok IS 'Items done.';
COMMENT ON COLUMN ingestd.runs.items_failed IS 'Items refused or given up.';
COMMENT ON COLUMN ingestd.runs.items_skipped IS 'Items that needed nothing.';
COMMENT ON COLUMN ingestd.runs.details IS 'Figures of the system''s own.';
COMMENT ON COLUMN ingestd.runs.error IS 'Why it failed, for people.';
COMMENT ON COLUMN ingestd.runs.error_detail IS 'Why it failed, for programs.';
COMMENT ON COLUMN ingestd.runs.retry_count IS 'How often it was found stale and started again.';
COMMENT ON COLUMN ingestd.runs.created_at IS 'When it was asked for.';
COMMENT ON COLUMN ingestd.runs.started_at IS 'When it first began.';
COMMENT ON COLUMN ingestd.runs.heartbeat_at IS 'When it last made progress.';
COMMENT ON COLUMN ingestd.runs.finished_at IS 'When it ended; set exactly in the final states.';
CREATE INDEX runs_unfinished ON ingestd.runs (heartbeat_at) WHERE finished_at IS NULL;
CREATE INDEX runs_system ON ingestd.runs (system, id DESC);
COMMENT ON INDEX ingestd.runs_unfinished IS 'Stale-run recovery.';
COMMENT ON INDEX ingestd.runs_system IS 'The newest runs of a system.';

CREATE TABLE ingestd.run_items (
  run_id      bigint NOT NULL REFERENCES ingestd.runs ON DELETE CASCADE,
  item_key    text NOT NULL CHECK (length(item_key) <= 1024),
  outcome     text NOT NULL CHECK (outcome IN ('ok', 'failed', 'skipped')),
  error       text,
  folded      boolean NOT NULL DEFAULT false,
  finished_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (run_id, item_key)
);
COMMENT ON TABLE  ingestd.run_items IS 'Outcome of each item of a fan-out run, written in the transaction that completes the item''s job.';
COMMENT ON COLUMN ingestd.run_items.run_id IS 'The run.';
COMMENT ON COLUMN ingestd.run_items.item_key IS 'Identifies the item within the run.';
COMMENT ON COLUMN ingestd.run_items.outcome IS 'ok, failed or skipped.';
COMMENT ON COLUMN ingestd.run_items.error IS 'Why it failed.';
COMMENT ON COLUMN ingestd.run_items.folded IS 'Already counted in the run''s row.';
COMMENT ON COLUMN ingestd.run_items.finished_at IS 'When the item ended.';
CREATE INDEX run_items_unfolded ON ingestd.run_items (run_id) WHERE NOT folded;
COMMENT ON INDEX ingestd.run_items_unfolded IS 'Outcomes still to be counted.';

CREATE TABLE ingestd.api_tokens (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name         text NOT NULL,
  prefix       text NOT NULL UNIQUE,
  secret_hash  bytea NOT NULL CHECK (length(secret_hash) = 32),
  role         text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
  tenant       text,
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz,
  last_used_at timestamptz,
  revoked_at   timestamptz
);
COMMENT ON TABLE  ingestd.api_tokens IS 'Who may call the HTTP interface.';
COMMENT ON COLUMN ingestd.api_tokens.id IS 'Identifies the token in the audit log.';
COMMENT ON COLUMN ingestd.api_tokens.name IS 'What it is for.';
COMMENT ON COLUMN ingestd.api_tokens.prefix IS 'The readable first part, by which it is looked up.';
COMMENT ON COLUMN ingestd.api_tokens.secret_hash IS 'SHA-256 of the secret; the secret itself is shown once and never stored.';
COMMENT ON COLUMN ingestd.api_tokens.role IS 'viewer, operator or admin.';
COMMENT ON COLUMN ingestd.api_tokens.tenant IS 'The tenant it is bound to; null: all.';
COMMENT ON COLUMN ingestd.api_tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN ingestd.api_tokens.expires_at IS 'When it stops working; null: never.';
COMMENT ON COLUMN ingestd.api_tokens.last_used_at IS 'When it last worked.';
COMMENT ON COLUMN ingestd.api_tokens.revoked_at IS 'When somebody took it back.';

CREATE TABLE ingestd.audit_log (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT now(),
  actor      text NOT NULL,
  action     text NOT NULL,
  object     text NOT NULL,
  tenant     text,
  request_id text,
  detail     jsonb
);
COMMENT ON TABLE  ingestd.audit_log IS 'Every change that a person asked for, written in the transaction of the change.';
COMMENT ON COLUMN ingestd.audit_log.id IS 'Order of the entries.';
COMMENT ON COLUMN ingestd.audit_log.at IS 'When.';
COMMENT ON COLUMN ingestd.audit_log.actor IS 'Who: a token''s name, a user, cli:<login>, local.';
COMMENT ON COLUMN ingestd.audit_log.action IS 'What, as noun.verb: job.cancel, queue.pause.';
COMMENT ON COLUMN ingestd.audit_log.object IS 'To what: job/42, queue/import.';
COMMENT ON COLUMN ingestd.audit_log.tenant IS 'Whose data.';
COMMENT ON COLUMN ingestd.audit_log.request_id IS 'The request that asked.';
COMMENT ON COLUMN ingestd.audit_log.detail IS 'What changed.';

CREATE TABLE ingestd.webhooks (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant     text NOT NULL DEFAULT 'default',
  url        text NOT NULL,
  events     text[] NOT NULL CHECK (cardinality(events) > 0),
  secret_ref text,
  paused_at  timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  ingestd.webhooks IS 'Who wants to be told of what.';
COMMENT ON COLUMN ingestd.webhooks.id IS 'Identifies the webhook.';
COMMENT ON COLUMN ingestd.webhooks.tenant IS 'Owner of the data it tells of.';
COMMENT ON COLUMN ingestd.webhooks.url IS 'Where to POST.';
COMMENT ON COLUMN ingestd.webhooks.events IS 'Names of events: job.dead, run.completed, …';
COMMENT ON COLUMN ingestd.webhooks.secret_ref IS 'Name of the secret that signs the body; never the secret.';
COMMENT ON COLUMN ingestd.webhooks.paused_at IS 'Set while paused.';
COMMENT ON COLUMN ingestd.webhooks.created_at IS 'When it was made.';
