-- Jobs that continue: results of steps, progress, log lines, output.

-- ── steps ───────────────────────────────────────────────────────────────────

CREATE TABLE ingestd.job_steps (
  shard       smallint NOT NULL DEFAULT 0,
  job_id      bigint NOT NULL,
  step        text NOT NULL CHECK (step <> '' AND length(step) <= 200),
  result      jsonb NOT NULL,
  lease_id    bigint NOT NULL,
  attempt     smallint NOT NULL,
  finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (job_id, shard, step),
  CONSTRAINT result_at_most_256_kib CHECK (pg_column_size(result) <= 262144)
);
COMMENT ON TABLE  ingestd.job_steps IS 'What a job has done already: a later attempt, or a replay, goes on after it. Swept by maintenance once the job is neither unfinished nor a dead letter that can be replayed.';
COMMENT ON COLUMN ingestd.job_steps.shard IS 'As in jobs.';
COMMENT ON COLUMN ingestd.job_steps.job_id IS 'The job''s id; a replay takes the steps of its dead letter with it.';
COMMENT ON COLUMN ingestd.job_steps.step IS 'Name of the step, unique within the job.';
COMMENT ON COLUMN ingestd.job_steps.result IS 'What the step returned, at most 256 KiB; larger results go by reference.';
COMMENT ON COLUMN ingestd.job_steps.lease_id IS 'The lease under which it was saved.';
COMMENT ON COLUMN ingestd.job_steps.attempt IS 'The attempt that did it, of this job or of the dead letter that it replays.';
COMMENT ON COLUMN ingestd.job_steps.finished_at IS 'When it was saved.';

-- ── progress ────────────────────────────────────────────────────────────────

-- Logged, though it may vanish: a standby cannot read unlogged tables, a failover would empty it,
-- and one small row per running job and second at most is next to no WAL.
CREATE TABLE ingestd.job_progress (
  shard      smallint NOT NULL DEFAULT 0,
  job_id     bigint NOT NULL,
  lease_id   bigint NOT NULL,
  attempt    smallint NOT NULL,
  n_done     bigint NOT NULL CHECK (n_done >= 0),
  n_total    bigint CHECK (n_total >= 0),
  note       text CHECK (length(note) <= 500),
  noted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (job_id, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  ingestd.job_progress IS 'How far attempts have come by their own account; apart from jobs, whose rows it would bloat. Swept with job_steps.';
COMMENT ON COLUMN ingestd.job_progress.shard IS 'As in jobs.';
COMMENT ON COLUMN ingestd.job_progress.job_id IS 'The job''s id.';
COMMENT ON COLUMN ingestd.job_progress.lease_id IS 'The lease of the attempt; an older one never writes over a newer one.';
COMMENT ON COLUMN ingestd.job_progress.attempt IS 'The attempt.';
COMMENT ON COLUMN ingestd.job_progress.n_done IS 'What is done, in units of the job''s own.';
COMMENT ON COLUMN ingestd.job_progress.n_total IS 'What there is to do, in the same units; null: not known.';
COMMENT ON COLUMN ingestd.job_progress.note IS 'What it is doing, for people.';
COMMENT ON COLUMN ingestd.job_progress.noted_at IS 'When it was written, a second after it was said at most.';

-- ── log lines ───────────────────────────────────────────────────────────────

CREATE TABLE ingestd.job_logs (
  shard     smallint NOT NULL DEFAULT 0,
  job_id    bigint NOT NULL,
  lease_id  bigint NOT NULL,
  line_no   smallint NOT NULL CHECK (line_no > 0),
  attempt   smallint NOT NULL,
  level     text NOT NULL CHECK (level IN ('info', 'warn', 'error')),
  message   text NOT NULL,
  logged_at timestamptz NOT NULL
) PARTITION BY RANGE (logged_at);
COMMENT ON TABLE  ingestd.job_logs IS 'What attempts said. Partitions by day are dropped, never deleted from.';
COMMENT ON COLUMN ingestd.job_logs.shard IS 'As in jobs.';
COMMENT ON COLUMN ingestd.job_logs.job_id IS 'The job''s id.';
COMMENT ON COLUMN ingestd.job_logs.lease_id IS 'The lease of the attempt; later attempts have greater ones.';
COMMENT ON COLUMN ingestd.job_logs.line_no IS 'Counts the lines of an attempt from 1.';
COMMENT ON COLUMN ingestd.job_logs.attempt IS 'The attempt, from 1; a snooze or a crash does not count, so two leases may share one.';
COMMENT ON COLUMN ingestd.job_logs.level IS 'info, warn or error.';
COMMENT ON COLUMN ingestd.job_logs.message IS 'The text, cut at 8 KiB.';
COMMENT ON COLUMN ingestd.job_logs.logged_at IS 'When it was said; the partition key.';
CREATE INDEX job_logs_line ON ingestd.job_logs (job_id, lease_id, line_no);
COMMENT ON INDEX ingestd.job_logs_line IS 'The lines of one job in order, from any one on.';
CREATE TABLE ingestd.job_logs_default PARTITION OF ingestd.job_logs DEFAULT;
COMMENT ON TABLE ingestd.job_logs_default IS 'Catches lines of days without a partition.';

-- ── output ──────────────────────────────────────────────────────────────────

ALTER TABLE ingestd.job_history ADD COLUMN output jsonb;
COMMENT ON COLUMN ingestd.job_history.output IS 'What the job returned, at most 64 KiB, where its kind keeps that.';

-- ── partitions ──────────────────────────────────────────────────────────────

CREATE OR REPLACE FUNCTION ingestd.make_partitions(days_ahead integer DEFAULT 3) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE parent text; day date; made integer := 0; part text;
BEGIN
  FOREACH parent IN ARRAY ARRAY['job_attempts', 'job_history', 'job_logs'] LOOP -- locked in this order elsewhere too
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
COMMENT ON FUNCTION ingestd.make_partitions(integer) IS 'Makes the daily partitions of history, attempts and log lines for today and the days ahead; returns how many.';

CREATE OR REPLACE FUNCTION ingestd.drop_partitions(keep_days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE part record; dropped integer := 0;
BEGIN
  FOR part IN
    SELECT c.relname FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
    JOIN pg_namespace n ON n.oid = p.relnamespace
    WHERE n.nspname = 'ingestd' AND p.relname IN ('job_attempts', 'job_history', 'job_logs')
      AND c.relname ~ '_[0-9]{8}$'
      AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - keep_days
    ORDER BY p.relname, c.relname
  LOOP
    EXECUTE format('DROP TABLE IF EXISTS ingestd.%I', part.relname);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END$$;
COMMENT ON FUNCTION ingestd.drop_partitions(integer) IS 'Drops daily partitions older than keep_days; returns how many.';
SELECT ingestd.make_partitions();

-- ── for people ──────────────────────────────────────────────────────────────

CREATE OR REPLACE VIEW ingestd.all_jobs AS
  SELECT id, kind, queue, state, priority, attempt, crashes, args, run_id, tenant,
         last_error AS error, created_at, run_at, started_at, NULL::timestamptz AS finished_at,
         NULL::jsonb AS output
  FROM ingestd.jobs
  UNION ALL
  SELECT id, kind, queue, state, priority, attempt, 0::smallint, args, run_id, tenant,
         NULL, created_at, run_at, started_at, finished_at, output
  FROM ingestd.job_history
  UNION ALL
  SELECT id, kind, queue, 'dead', priority, attempt, crashes, args, run_id, tenant,
         error, created_at, NULL, NULL, died_at, NULL
  FROM ingestd.dead_jobs;
