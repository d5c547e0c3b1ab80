-- The queue: one small table of unfinished work, an append-only history, dead letters apart.

CREATE SCHEMA IF NOT EXISTS ingestd;
COMMENT ON SCHEMA ingestd IS 'Durable jobs and runs: the queue, its history, its schedules, its people.';

CREATE SEQUENCE ingestd.lease_seq;
COMMENT ON SEQUENCE ingestd.lease_seq IS 'Fencing tokens: one per claim, never reused.';

-- ── kinds and queues ────────────────────────────────────────────────────────

CREATE TABLE ingestd.job_kinds (
  kind          text PRIMARY KEY CHECK (kind ~ '^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$'),
  queue         text NOT NULL,
  max_attempts  smallint NOT NULL CHECK (max_attempts > 0),
  timeout_secs  integer NOT NULL CHECK (timeout_secs > 0),
  registered_at timestamptz NOT NULL DEFAULT now(),
  seen_at       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  ingestd.job_kinds IS 'The kinds that some daemon or migration registered; a job of any other kind is refused at INSERT.';
COMMENT ON COLUMN ingestd.job_kinds.kind IS 'Name of the job''s type, system.verb; never changed once released.';
COMMENT ON COLUMN ingestd.job_kinds.queue IS 'The queue of jobs that name none.';
COMMENT ON COLUMN ingestd.job_kinds.max_attempts IS 'Attempts of jobs whose row says none.';
COMMENT ON COLUMN ingestd.job_kinds.timeout_secs IS 'Longest one attempt may take, in seconds.';
COMMENT ON COLUMN ingestd.job_kinds.registered_at IS 'When the kind was first seen.';
COMMENT ON COLUMN ingestd.job_kinds.seen_at IS 'When a starting daemon last registered it.';

CREATE TABLE ingestd.queues (
  queue           text PRIMARY KEY CHECK (queue <> '' AND length(queue) <= 63),
  paused_at       timestamptz,
  max_running     integer CHECK (max_running > 0),
  created_at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  ingestd.queues IS 'Named lanes with their own concurrency. A queue without a row here runs with defaults.';
COMMENT ON COLUMN ingestd.queues.queue IS 'Name of the lane, at most 63 characters.';
COMMENT ON COLUMN ingestd.queues.paused_at IS 'Set while the queue is paused: nothing is claimed from it.';
COMMENT ON COLUMN ingestd.queues.max_running IS 'Most jobs running at once across all daemons; null: no limit.';
COMMENT ON COLUMN ingestd.queues.created_at IS 'When the row was made.';

-- ── jobs: unfinished work only ──────────────────────────────────────────────

CREATE TABLE ingestd.jobs (
  shard            smallint NOT NULL DEFAULT 0,
  id               bigint GENERATED ALWAYS AS IDENTITY,
  kind             text NOT NULL,
  args             jsonb NOT NULL DEFAULT '{}'
                   CONSTRAINT args_is_an_object CHECK (jsonb_typeof(args) = 'object')
                   CONSTRAINT args_at_most_256_kib CHECK (pg_column_size(args) <= 262144),
  queue            text NOT NULL,
  priority         smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 3),
  run_at           timestamptz NOT NULL DEFAULT now(),
  max_attempts     smallint CHECK (max_attempts > 0),
  unique_key       text CHECK (length(unique_key) <= 1024),
  gate_key         text CHECK (length(gate_key) <= 1024),
  run_id           bigint,
  tenant           text,
  meta             jsonb,
  state            text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'held', 'running')),
  attempt          smallint NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  crashes          smallint NOT NULL DEFAULT 0 CHECK (crashes >= 0),
  lease_id         bigint,
  worker_id        bigint,
  started_at       timestamptz,
  deadline_at      timestamptz,
  cancel_requested boolean NOT NULL DEFAULT false,
  last_error       text,
  created_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (id, shard),
  CONSTRAINT running_has_a_lease CHECK ((state = 'running') = (lease_id IS NOT NULL)),
  CONSTRAINT running_has_a_worker CHECK ((state = 'running') = (worker_id IS NOT NULL))
) WITH (
  fillfactor = 85,
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
  autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off
);
COMMENT ON TABLE  ingestd.jobs IS 'Unfinished work; the table people INSERT into. Only kind is required.';
COMMENT ON COLUMN ingestd.jobs.shard IS 'Always 0 on one Postgres; in every key and every statement, so that the table can be distributed.';
-- id leads its key: after shard, the planner may drop id = ANY (…) from the index condition and
-- read the whole index whenever it believes the table small.
COMMENT ON COLUMN ingestd.jobs.id IS 'Identifies the job for ever, also in job_history and dead_jobs.';
COMMENT ON COLUMN ingestd.jobs.kind IS 'Name of the job''s type, one of job_kinds.';
COMMENT ON COLUMN ingestd.jobs.args IS 'Arguments, a JSON object of at most 256 KiB; larger inputs go by reference.';
COMMENT ON COLUMN ingestd.jobs.queue IS 'Lane; left out: the kind''s queue.';
COMMENT ON COLUMN ingestd.jobs.priority IS '0 urgent, 1 normal, 2 low, 3 background.';
COMMENT ON COLUMN ingestd.jobs.run_at IS 'Not before this time; a retry or a scheduled job is simply queued for later.';
COMMENT ON COLUMN ingestd.jobs.max_attempts IS 'Attempts in all; null: the kind''s.';
COMMENT ON COLUMN ingestd.jobs.unique_key IS 'At most one unfinished job per key.';
COMMENT ON COLUMN ingestd.jobs.gate_key IS 'The limit that this job counts against: host, tenant, product.';
COMMENT ON COLUMN ingestd.jobs.run_id IS 'The run this job is part of, ingestd.runs.id.';
COMMENT ON COLUMN ingestd.jobs.tenant IS 'Owner of the data.';
COMMENT ON COLUMN ingestd.jobs.meta IS 'Trace context, tags, who enqueued it; the queue never reads it.';
COMMENT ON COLUMN ingestd.jobs.state IS 'queued: to be claimed once run_at has come. held: waits for its gate, or, as one that may kill workers, for its turn to run without its like. running: under a lease.';
COMMENT ON COLUMN ingestd.jobs.attempt IS 'Attempts started so far that count; a crash, a snooze or a hand-back does not.';
COMMENT ON COLUMN ingestd.jobs.crashes IS 'Attempts in a row that ended without an outcome and without progress; at queue.max_crashes, 3 by default, the job is dead as poison.';
COMMENT ON COLUMN ingestd.jobs.lease_id IS 'The fence: drawn from lease_seq at every claim, null unless running.';
COMMENT ON COLUMN ingestd.jobs.worker_id IS 'The worker that holds the lease, ingestd.workers.id; null unless running.';
COMMENT ON COLUMN ingestd.jobs.started_at IS 'When the last attempt was claimed.';
COMMENT ON COLUMN ingestd.jobs.deadline_at IS 'When the running attempt has used up its time.';
COMMENT ON COLUMN ingestd.jobs.cancel_requested IS 'Somebody wants the running attempt to stop.';
COMMENT ON COLUMN ingestd.jobs.last_error IS 'Why the last attempt failed.';
COMMENT ON COLUMN ingestd.jobs.created_at IS 'When the row was inserted.';

CREATE INDEX jobs_ready   ON ingestd.jobs (shard, queue, priority, run_at, id) WHERE state = 'queued';
CREATE INDEX jobs_running ON ingestd.jobs (shard, worker_id) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_unique ON ingestd.jobs (shard, unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_held    ON ingestd.jobs (shard, gate_key, priority, run_at, id) WHERE state = 'held';
CREATE INDEX jobs_gated   ON ingestd.jobs (shard, gate_key) WHERE gate_key IS NOT NULL AND state <> 'held';
CREATE INDEX jobs_suspect ON ingestd.jobs (shard, state, run_at) WHERE crashes >= 2;
CREATE INDEX jobs_run     ON ingestd.jobs (shard, run_id) WHERE run_id IS NOT NULL;
COMMENT ON INDEX ingestd.jobs_ready IS 'Claims and the next due time.';
COMMENT ON INDEX ingestd.jobs_running IS 'Rescue, heartbeat and hand-back of one worker''s jobs.';
COMMENT ON INDEX ingestd.jobs_unique IS 'One unfinished job per key.';
COMMENT ON INDEX ingestd.jobs_held IS 'Next job of a gate.';
COMMENT ON INDEX ingestd.jobs_gated IS 'Slots of a gate, counted from rows.';
COMMENT ON INDEX ingestd.jobs_suspect IS 'Jobs that were there when a worker died twice; they run one at a time.';
COMMENT ON INDEX ingestd.jobs_run IS 'Unfinished jobs of a run.';

-- ── history, attempts, dead letters ─────────────────────────────────────────

CREATE TABLE ingestd.job_history (
  shard       smallint NOT NULL,
  id          bigint NOT NULL,
  kind        text NOT NULL,
  queue       text NOT NULL,
  state       text NOT NULL CHECK (state IN ('completed', 'cancelled')),
  priority    smallint NOT NULL,
  attempt     smallint NOT NULL,
  args        jsonb,
  run_id      bigint,
  tenant      text,
  worker_id   bigint,
  created_at  timestamptz NOT NULL,
  run_at      timestamptz NOT NULL,
  started_at  timestamptz,
  finished_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (finished_at);
COMMENT ON TABLE  ingestd.job_history IS 'Append-only: one row per job that completed or was cancelled. Partitions by day are dropped, never deleted from.';
COMMENT ON COLUMN ingestd.job_history.shard IS 'As in jobs.';
COMMENT ON COLUMN ingestd.job_history.id IS 'The job''s id.';
COMMENT ON COLUMN ingestd.job_history.kind IS 'The job''s kind.';
COMMENT ON COLUMN ingestd.job_history.queue IS 'The queue it ran in.';
COMMENT ON COLUMN ingestd.job_history.state IS 'completed or cancelled.';
COMMENT ON COLUMN ingestd.job_history.priority IS 'As in jobs.';
COMMENT ON COLUMN ingestd.job_history.attempt IS 'Attempts it took.';
COMMENT ON COLUMN ingestd.job_history.args IS 'The arguments, where they are small; null past 1 KiB.';
COMMENT ON COLUMN ingestd.job_history.run_id IS 'The run it was part of.';
COMMENT ON COLUMN ingestd.job_history.tenant IS 'Owner of the data.';
COMMENT ON COLUMN ingestd.job_history.worker_id IS 'The worker that finished it.';
COMMENT ON COLUMN ingestd.job_history.created_at IS 'When the job was inserted.';
COMMENT ON COLUMN ingestd.job_history.run_at IS 'When its last attempt was due.';
COMMENT ON COLUMN ingestd.job_history.started_at IS 'When its last attempt was claimed; null: cancelled before any.';
COMMENT ON COLUMN ingestd.job_history.finished_at IS 'When it ended; the partition key.';
CREATE INDEX job_history_id ON ingestd.job_history (id);
CREATE INDEX job_history_time ON ingestd.job_history USING brin (finished_at);
COMMENT ON INDEX ingestd.job_history_id IS 'One job by id.';
COMMENT ON INDEX ingestd.job_history_time IS 'Newest first, at almost no cost per row.';

CREATE TABLE ingestd.job_attempts (
  shard       smallint NOT NULL,
  job_id      bigint NOT NULL,
  kind        text NOT NULL,
  attempt     smallint NOT NULL,
  outcome     text NOT NULL CHECK (outcome IN ('retry', 'dead', 'crash', 'cancelled')),
  error_kind  text NOT NULL,
  error       text NOT NULL,
  backtrace   text,
  worker_id   bigint,
  started_at  timestamptz,
  finished_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (finished_at);
COMMENT ON TABLE  ingestd.job_attempts IS 'Only the attempts that did not end in success, and why.';
COMMENT ON COLUMN ingestd.job_attempts.shard IS 'As in jobs.';
COMMENT ON COLUMN ingestd.job_attempts.job_id IS 'The job''s id.';
COMMENT ON COLUMN ingestd.job_attempts.kind IS 'The job''s kind.';
COMMENT ON COLUMN ingestd.job_attempts.attempt IS 'Which attempt, from 1.';
COMMENT ON COLUMN ingestd.job_attempts.outcome IS 'retry: it will be tried again. dead: it was the last. crash: it ended without an outcome. cancelled: somebody stopped it.';
COMMENT ON COLUMN ingestd.job_attempts.error_kind IS 'One of timeout, http, parse, validation, db, panic, io, crash, other.';
COMMENT ON COLUMN ingestd.job_attempts.error IS 'The error with its causes.';
COMMENT ON COLUMN ingestd.job_attempts.backtrace IS 'Where it came from, if one was captured.';
COMMENT ON COLUMN ingestd.job_attempts.worker_id IS 'The worker that ran it.';
COMMENT ON COLUMN ingestd.job_attempts.started_at IS 'When it was claimed.';
COMMENT ON COLUMN ingestd.job_attempts.finished_at IS 'When it ended; the partition key.';
CREATE INDEX job_attempts_job ON ingestd.job_attempts (job_id);
COMMENT ON INDEX ingestd.job_attempts_job IS 'The attempts of one job.';

CREATE TABLE ingestd.dead_jobs (
  shard         smallint NOT NULL DEFAULT 0,
  id            bigint NOT NULL,
  kind          text NOT NULL,
  args          jsonb NOT NULL,
  queue         text NOT NULL,
  priority      smallint NOT NULL,
  max_attempts  smallint,
  unique_key    text,
  gate_key      text,
  run_id        bigint,
  tenant        text,
  meta          jsonb,
  attempt       smallint NOT NULL,
  crashes       smallint NOT NULL,
  reason        text NOT NULL CHECK (reason IN ('exhausted', 'fatal', 'poison')),
  error         text NOT NULL,
  fingerprint   bigint NOT NULL,
  created_at    timestamptz NOT NULL,
  died_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  replayed_from bigint,
  replayed_to   bigint,
  replayed_at   timestamptz,
  PRIMARY KEY (id, shard)
);
COMMENT ON TABLE  ingestd.dead_jobs IS 'Dead letters: jobs that will not be tried again until someone replays them.';
COMMENT ON COLUMN ingestd.dead_jobs.shard IS 'As in jobs.';
COMMENT ON COLUMN ingestd.dead_jobs.id IS 'The job''s id.';
COMMENT ON COLUMN ingestd.dead_jobs.kind IS 'The job''s kind.';
COMMENT ON COLUMN ingestd.dead_jobs.args IS 'Its arguments.';
COMMENT ON COLUMN ingestd.dead_jobs.queue IS 'Its queue.';
COMMENT ON COLUMN ingestd.dead_jobs.priority IS 'Its priority.';
COMMENT ON COLUMN ingestd.dead_jobs.max_attempts IS 'As in jobs.';
COMMENT ON COLUMN ingestd.dead_jobs.unique_key IS 'As in jobs.';
COMMENT ON COLUMN ingestd.dead_jobs.gate_key IS 'As in jobs.';
COMMENT ON COLUMN ingestd.dead_jobs.run_id IS 'The run it was part of.';
COMMENT ON COLUMN ingestd.dead_jobs.tenant IS 'Owner of the data.';
COMMENT ON COLUMN ingestd.dead_jobs.meta IS 'As in jobs.';
COMMENT ON COLUMN ingestd.dead_jobs.attempt IS 'Attempts it had.';
COMMENT ON COLUMN ingestd.dead_jobs.crashes IS 'Crashes in a row it had.';
COMMENT ON COLUMN ingestd.dead_jobs.reason IS 'exhausted: out of attempts. fatal: the handler said so, or the args do not fit. poison: it killed its worker too often.';
COMMENT ON COLUMN ingestd.dead_jobs.error IS 'The last error with its causes.';
COMMENT ON COLUMN ingestd.dead_jobs.fingerprint IS 'Hash of the error with its numbers left out; with the kind it groups what failed alike.';
COMMENT ON COLUMN ingestd.dead_jobs.created_at IS 'When the job was inserted.';
COMMENT ON COLUMN ingestd.dead_jobs.died_at IS 'When the queue gave up.';
COMMENT ON COLUMN ingestd.dead_jobs.replayed_from IS 'The dead letter that this job was a replay of.';
COMMENT ON COLUMN ingestd.dead_jobs.replayed_to IS 'The job that a replay made of it.';
COMMENT ON COLUMN ingestd.dead_jobs.replayed_at IS 'When it was replayed.';
CREATE INDEX dead_jobs_fingerprint ON ingestd.dead_jobs (fingerprint, died_at);
CREATE INDEX dead_jobs_queue ON ingestd.dead_jobs (queue) WHERE replayed_at IS NULL;
COMMENT ON INDEX ingestd.dead_jobs_fingerprint IS 'Groups of alike failures.';
COMMENT ON INDEX ingestd.dead_jobs_queue IS 'Dead letters that nobody replayed, per queue.';

CREATE TABLE ingestd.job_stats (
  minute       timestamptz NOT NULL,
  kind         text NOT NULL,
  queue        text NOT NULL,
  outcome      text NOT NULL,
  n_jobs       bigint NOT NULL,
  duration_ms  bigint NOT NULL,
  wait_ms      bigint NOT NULL,
  buckets      bigint[] NOT NULL,
  PRIMARY KEY (minute, kind, queue, outcome)
);
COMMENT ON TABLE  ingestd.job_stats IS 'Attempts per minute, kind, queue and outcome; nothing fills it yet.';
COMMENT ON COLUMN ingestd.job_stats.minute IS 'Start of the minute in which the attempts ended.';
COMMENT ON COLUMN ingestd.job_stats.kind IS 'The jobs'' kind.';
COMMENT ON COLUMN ingestd.job_stats.queue IS 'The jobs'' queue.';
COMMENT ON COLUMN ingestd.job_stats.outcome IS 'success, retry, dead, cancelled, snoozed or lost.';
COMMENT ON COLUMN ingestd.job_stats.n_jobs IS 'Attempts that ended.';
COMMENT ON COLUMN ingestd.job_stats.duration_ms IS 'Sum of their run times, in milliseconds.';
COMMENT ON COLUMN ingestd.job_stats.wait_ms IS 'Sum of their waits from due to claimed, in milliseconds.';
COMMENT ON COLUMN ingestd.job_stats.buckets IS 'Attempts per run time: up to 5 ms, 50 ms, 500 ms, 5 s, 50 s, 500 s, longer.';

-- ── workers and schedules ───────────────────────────────────────────────────

CREATE TABLE ingestd.workers (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  host         text NOT NULL,
  place        text,
  pid          integer NOT NULL,
  version      text NOT NULL,
  queues       text[] NOT NULL,
  started_at   timestamptz NOT NULL DEFAULT now(),
  heartbeat_at timestamptz NOT NULL DEFAULT now(),
  beat         bigint NOT NULL DEFAULT 0,
  ended_at     timestamptz,
  end_reason   text CHECK (end_reason IN ('stopped', 'lost')),
  CONSTRAINT ended_for_a_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE  ingestd.workers IS 'One row per life of a daemon; its heartbeat covers all its leases.';
COMMENT ON COLUMN ingestd.workers.id IS 'New at every start and after every lost heartbeat.';
COMMENT ON COLUMN ingestd.workers.host IS 'Where it runs.';
COMMENT ON COLUMN ingestd.workers.place IS 'Machine and process namespace: within one place, a pid that is gone tells that the worker is.';
COMMENT ON COLUMN ingestd.workers.pid IS 'Its process id there.';
COMMENT ON COLUMN ingestd.workers.version IS 'Its version of ingestd.';
COMMENT ON COLUMN ingestd.workers.queues IS 'The queues it claims from.';
COMMENT ON COLUMN ingestd.workers.started_at IS 'When it began.';
COMMENT ON COLUMN ingestd.workers.heartbeat_at IS 'When it was last heard of, on the database''s clock.';
COMMENT ON COLUMN ingestd.workers.beat IS 'Counts heartbeats; stands still when the worker does, whatever the clocks say.';
COMMENT ON COLUMN ingestd.workers.ended_at IS 'When it ended or was given up.';
COMMENT ON COLUMN ingestd.workers.end_reason IS 'stopped: it said so itself. lost: others gave it up and rescued its jobs.';
CREATE INDEX workers_live ON ingestd.workers (heartbeat_at) WHERE ended_at IS NULL;
COMMENT ON INDEX ingestd.workers_live IS 'Workers to watch.';

CREATE TABLE ingestd.schedules (
  name        text PRIMARY KEY CHECK (name <> '' AND length(name) <= 200),
  cron        text NOT NULL,
  timezone    text NOT NULL DEFAULT 'UTC',
  kind        text NOT NULL,
  args        jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(args) = 'object'),
  queue       text,
  priority    smallint CHECK (priority BETWEEN 0 AND 3),
  missed      text NOT NULL DEFAULT 'once' CHECK (missed IN ('skip', 'once', 'all')),
  missed_max  integer NOT NULL DEFAULT 100 CHECK (missed_max > 0),
  overlap     text NOT NULL DEFAULT 'allow' CHECK (overlap IN ('allow', 'skip', 'queue')),
  jitter_ms   integer NOT NULL DEFAULT 0 CHECK (jitter_ms >= 0),
  origin      text NOT NULL DEFAULT 'user' CHECK (origin IN ('user', 'config', 'built_in')),
  paused_at   timestamptz,
  next_at     timestamptz,
  last_at     timestamptz,
  last_error  text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  ingestd.schedules IS 'Cron lines; a due tick becomes exactly one job, however many daemons run.';
COMMENT ON COLUMN ingestd.schedules.name IS 'Identifies the schedule.';
COMMENT ON COLUMN ingestd.schedules.cron IS 'Five fields, or six with seconds first; POSIX weekdays.';
COMMENT ON COLUMN ingestd.schedules.timezone IS 'IANA name of the zone the cron line is read in.';
COMMENT ON COLUMN ingestd.schedules.kind IS 'The kind to enqueue.';
COMMENT ON COLUMN ingestd.schedules.args IS 'Its arguments.';
COMMENT ON COLUMN ingestd.schedules.queue IS 'Its queue; null: the kind''s.';
COMMENT ON COLUMN ingestd.schedules.priority IS 'Its priority; null: 1.';
COMMENT ON COLUMN ingestd.schedules.missed IS 'Ticks missed while no daemon ran: skip them, run once for all, or all up to missed_max.';
COMMENT ON COLUMN ingestd.schedules.missed_max IS 'Most missed ticks that "all" makes up for; the oldest are left out.';
COMMENT ON COLUMN ingestd.schedules.overlap IS 'While the last tick''s job is unfinished: allow another, skip the tick, or queue it until then.';
COMMENT ON COLUMN ingestd.schedules.jitter_ms IS 'Each job is delayed by chance up to this many milliseconds.';
COMMENT ON COLUMN ingestd.schedules.origin IS 'Who made it: a user, the configuration, or a built-in kind.';
COMMENT ON COLUMN ingestd.schedules.paused_at IS 'Set while paused: ticks pass without a job.';
COMMENT ON COLUMN ingestd.schedules.next_at IS 'The next due time; null: to be computed.';
COMMENT ON COLUMN ingestd.schedules.last_at IS 'The last tick handled.';
COMMENT ON COLUMN ingestd.schedules.last_error IS 'Why its last tick could not be enqueued.';
COMMENT ON COLUMN ingestd.schedules.created_at IS 'When it was made.';
COMMENT ON COLUMN ingestd.schedules.updated_at IS 'When its definition last changed.';
CREATE INDEX schedules_due ON ingestd.schedules (next_at) WHERE paused_at IS NULL;
COMMENT ON INDEX ingestd.schedules_due IS 'The schedule pump.';

CREATE TABLE ingestd.schedule_ticks (
  schedule   text NOT NULL,
  tick_at    timestamptz NOT NULL,
  result     text NOT NULL CHECK (result IN ('enqueued', 'missed', 'overlap', 'failed')),
  job_id     bigint,
  handled_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (schedule, tick_at),
  CONSTRAINT enqueued_has_a_job CHECK ((result = 'enqueued') = (job_id IS NOT NULL))
);
COMMENT ON TABLE  ingestd.schedule_ticks IS 'One row per tick that was handled: the proof that it happened once.';
COMMENT ON COLUMN ingestd.schedule_ticks.schedule IS 'The schedule''s name.';
COMMENT ON COLUMN ingestd.schedule_ticks.tick_at IS 'The due time.';
COMMENT ON COLUMN ingestd.schedule_ticks.result IS 'enqueued, or why not: missed (policy), overlap (policy), failed.';
COMMENT ON COLUMN ingestd.schedule_ticks.job_id IS 'The job it became.';
COMMENT ON COLUMN ingestd.schedule_ticks.handled_at IS 'When a daemon handled it.';

-- ── enqueue ─────────────────────────────────────────────────────────────────

CREATE FUNCTION ingestd.refuse_kind(unknown text) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE near text;
BEGIN
  -- nearest first: shared two-letter pieces of the names
  SELECT string_agg(quote_literal(kind), ', ') INTO near FROM (
    SELECT k.kind, (
      SELECT count(*) FROM generate_series(1, length(unknown) - 1) i
      WHERE position(substr(unknown, i, 2) IN k.kind) > 0) AS shared
    FROM ingestd.job_kinds k ORDER BY shared DESC, k.kind LIMIT 3) nearest;
  RAISE EXCEPTION 'unknown job kind "%"', unknown
    USING ERRCODE = 'check_violation',
          HINT = CASE WHEN near IS NULL
                 THEN 'No kind is registered yet: run `ingestd migrate`, or start a daemon once.'
                 ELSE 'Near ones: ' || near || '. All: SELECT kind FROM ingestd.job_kinds.' END;
END$$;
COMMENT ON FUNCTION ingestd.refuse_kind(text) IS 'Raises the error for a kind nobody registered, with the near ones.';

CREATE FUNCTION ingestd.fill_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  SELECT queue INTO NEW.queue FROM ingestd.job_kinds WHERE kind = NEW.kind;
  IF NOT FOUND THEN PERFORM ingestd.refuse_kind(NEW.kind); END IF;
  RETURN NEW;
END$$;
COMMENT ON FUNCTION ingestd.fill_queue() IS 'Gives a job without a queue its kind''s.';

CREATE TRIGGER fill_queue BEFORE INSERT ON ingestd.jobs
  FOR EACH ROW WHEN (NEW.queue IS NULL) EXECUTE FUNCTION ingestd.fill_queue();

CREATE FUNCTION ingestd.after_enqueue() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE item record;
BEGIN
  SELECT i.kind INTO item FROM inserted i
  WHERE NOT EXISTS (SELECT FROM ingestd.job_kinds k WHERE k.kind = i.kind) LIMIT 1;
  IF FOUND THEN PERFORM ingestd.refuse_kind(item.kind); END IF;

  -- A hint, never the truth: without it the poll finds the job. The try-lock keeps concurrent
  -- inserters from queueing for the lock that NOTIFY holds across the commit's flush; whoever
  -- misses it relies on the notified worker's trailing look. A full queue would fail the INSERT.
  IF pg_notification_queue_usage() < 0.5 THEN
    FOR item IN SELECT DISTINCT i.queue FROM inserted i WHERE i.run_at <= now() AND i.state = 'queued' LOOP
      IF pg_try_advisory_xact_lock(1229866835, hashtext(item.queue)) THEN
        PERFORM pg_notify('ingestd_wake', item.queue);
      END IF;
    END LOOP;
  END IF;
  RETURN NULL;
END$$;
COMMENT ON FUNCTION ingestd.after_enqueue() IS 'Once per statement, COPY included: refuses unknown kinds, wakes a listener per queue.';

CREATE TRIGGER after_enqueue AFTER INSERT ON ingestd.jobs
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION ingestd.after_enqueue();

CREATE FUNCTION ingestd.enqueue(
  kind text, args jsonb DEFAULT '{}', queue text DEFAULT NULL, priority integer DEFAULT 1,
  run_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
  unique_key text DEFAULT NULL, tenant text DEFAULT NULL, meta jsonb DEFAULT NULL,
  gate_key text DEFAULT NULL, run_id bigint DEFAULT NULL
) RETURNS TABLE (job_id bigint, inserted boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO ingestd.jobs AS j
    (kind, args, queue, priority, run_at, max_attempts, unique_key, gate_key, run_id, tenant, meta)
  VALUES (kind, coalesce(args, '{}'), queue, coalesce(priority, 1),
          coalesce(run_at, now()), max_attempts, unique_key, gate_key, run_id, tenant, meta)
  ON CONFLICT (shard, unique_key) WHERE unique_key IS NOT NULL DO NOTHING
  RETURNING j.id INTO job_id;
  inserted := job_id IS NOT NULL;
  IF NOT inserted THEN
    -- Null where the other job finished between the two statements: nothing is left to name.
    SELECT j.id INTO job_id FROM ingestd.jobs j WHERE j.shard = 0 AND j.unique_key = enqueue.unique_key;
  END IF;
  RETURN NEXT;
END$$;
COMMENT ON FUNCTION ingestd.enqueue IS 'Inserts a job and says whether it did, or which unfinished job has the key already.';

-- ── partitions ──────────────────────────────────────────────────────────────

CREATE FUNCTION ingestd.make_partitions(days_ahead integer DEFAULT 3) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE parent text; day date; made integer := 0; part text;
BEGIN
  FOREACH parent IN ARRAY ARRAY['job_attempts', 'job_history'] LOOP -- locked in this order elsewhere too
    FOR day IN SELECT d::date FROM generate_series(
        (now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + days_ahead, '1 day') d LOOP
      part := parent || '_' || to_char(day, 'YYYYMMDD');
      IF to_regclass('ingestd.' || part) IS NULL THEN
        BEGIN
          EXECUTE format('CREATE TABLE ingestd.%I PARTITION OF ingestd.%I FOR VALUES FROM (%L) TO (%L)',
            part, parent, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
          made := made + 1;
        EXCEPTION
          WHEN duplicate_table THEN NULL;    -- another daemon was faster
          WHEN check_violation THEN NULL;    -- rows of that day are in the default partition already
        END;
      END IF;
    END LOOP;
  END LOOP;
  RETURN made;
END$$;
COMMENT ON FUNCTION ingestd.make_partitions(integer) IS 'Makes the daily partitions of history and attempts for today and the days ahead; returns how many.';

CREATE FUNCTION ingestd.drop_partitions(keep_days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE part record; dropped integer := 0;
BEGIN
  FOR part IN
    SELECT c.relname FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
    JOIN pg_namespace n ON n.oid = p.relnamespace
    WHERE n.nspname = 'ingestd' AND p.relname IN ('job_history', 'job_attempts')
      AND c.relname ~ '_[0-9]{8}$'
      AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - keep_days
  LOOP
    EXECUTE format('DROP TABLE IF EXISTS ingestd.%I', part.relname);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END$$;
COMMENT ON FUNCTION ingestd.drop_partitions(integer) IS 'Drops daily partitions older than keep_days; returns how many.';

CREATE TABLE ingestd.job_history_default PARTITION OF ingestd.job_history DEFAULT;
CREATE TABLE ingestd.job_attempts_default PARTITION OF ingestd.job_attempts DEFAULT;
COMMENT ON TABLE ingestd.job_history_default IS 'Catches rows of days without a partition, so that a completion never fails for want of one.';
COMMENT ON TABLE ingestd.job_attempts_default IS 'Catches rows of days without a partition.';
SELECT ingestd.make_partitions();

-- ── for people ──────────────────────────────────────────────────────────────

CREATE VIEW ingestd.all_jobs AS
  SELECT id, kind, queue, state, priority, attempt, crashes, args, run_id, tenant,
         last_error AS error, created_at, run_at, started_at, NULL::timestamptz AS finished_at
  FROM ingestd.jobs
  UNION ALL
  SELECT id, kind, queue, state, priority, attempt, 0::smallint, args, run_id, tenant,
         NULL, created_at, run_at, started_at, finished_at
  FROM ingestd.job_history
  UNION ALL
  SELECT id, kind, queue, 'dead', priority, attempt, crashes, args, run_id, tenant,
         error, created_at, NULL, NULL, died_at
  FROM ingestd.dead_jobs;
COMMENT ON VIEW ingestd.all_jobs IS 'Every job wherever it is: live, history, dead. For people; programs read the tables.';
