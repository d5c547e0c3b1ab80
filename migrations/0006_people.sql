-- What people do to jobs: unique per period, dead letters by the group.

-- ── unique per period ───────────────────────────────────────────────────────

CREATE TABLE ingestd.unique_periods (
  shard      smallint NOT NULL DEFAULT 0,
  unique_key text NOT NULL,
  job_id     bigint,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (unique_key, shard)
);
COMMENT ON TABLE  ingestd.unique_periods IS 'Which job was enqueued for a key and period, also once it has ended; forgotten by maintenance a day after the period.';
COMMENT ON COLUMN ingestd.unique_periods.shard IS 'As in jobs.';
COMMENT ON COLUMN ingestd.unique_periods.unique_key IS 'The caller''s key, @, the period''s start in UTC, / and its length in seconds; also the job''s unique_key.';
COMMENT ON COLUMN ingestd.unique_periods.job_id IS 'The job. Null only within the transaction that inserts it.';
COMMENT ON COLUMN ingestd.unique_periods.expires_at IS 'When the period ends; nobody asks for it afterwards.';
CREATE INDEX unique_periods_expired ON ingestd.unique_periods (expires_at);
COMMENT ON INDEX ingestd.unique_periods_expired IS 'Periods to forget.';

CREATE FUNCTION ingestd.period_start(length interval, at timestamptz DEFAULT now()) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF extract(year FROM length) <> 0 OR extract(month FROM length) <> 0
     OR extract(epoch FROM length) NOT BETWEEN 1 AND 31622400
     OR extract(epoch FROM length) <> floor(extract(epoch FROM length)) THEN
    RAISE EXCEPTION 'unique_for is %', length
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is whole seconds from 1 s to 366 days, and no months: 1 hour, 7 days.';
  END IF;
  RETURN date_bin(length, at, '2001-01-01 00:00:00Z');
END$$;
COMMENT ON FUNCTION ingestd.period_start(interval, timestamptz) IS 'Start of the period of a length that a time lies in. Periods are counted from Monday, 2001-01-01 00:00 UTC: an hour begins on the hour, a day at midnight UTC, a week on Monday.';

DROP FUNCTION ingestd.enqueue(text, jsonb, text, integer, timestamptz, integer, text, text, jsonb, text, bigint);
CREATE FUNCTION ingestd.enqueue(
  kind text, args jsonb DEFAULT '{}', queue text DEFAULT NULL, priority integer DEFAULT 1,
  run_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
  unique_key text DEFAULT NULL, tenant text DEFAULT NULL, meta jsonb DEFAULT NULL,
  gate_key text DEFAULT NULL, run_id bigint DEFAULT NULL, unique_for interval DEFAULT NULL
) RETURNS TABLE (job_id bigint, inserted boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE key text := unique_key; starts timestamptz;
BEGIN
  IF unique_for IS NOT NULL THEN
    IF unique_key IS NULL THEN
      RAISE EXCEPTION 'unique_for without unique_key'
        USING ERRCODE = 'invalid_parameter_value',
              HINT = 'Say what must be unique in the period: unique_key => ''report:42''.';
    END IF;
    starts := ingestd.period_start(unique_for);
    key := unique_key || '@' || to_char(starts AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
           || '/' || extract(epoch FROM unique_for)::bigint;
    -- Waits for whoever enqueues the same right now; after a rollback of theirs it is ours.
    INSERT INTO ingestd.unique_periods AS p (unique_key, expires_at)
    VALUES (key, starts + unique_for) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      SELECT p.job_id INTO job_id FROM ingestd.unique_periods p WHERE p.shard = 0 AND p.unique_key = key;
      inserted := false;
      RETURN NEXT;
      RETURN;
    END IF;
  END IF;

  INSERT INTO ingestd.jobs AS j
    (kind, args, queue, priority, run_at, max_attempts, unique_key, gate_key, run_id, tenant, meta)
  VALUES (kind, coalesce(args, '{}'), queue, coalesce(priority, 1),
          coalesce(run_at, now()), max_attempts, key, gate_key, run_id, tenant, meta)
  ON CONFLICT (shard, unique_key) WHERE unique_key IS NOT NULL DO NOTHING
  RETURNING j.id INTO job_id;
  inserted := job_id IS NOT NULL;
  IF NOT inserted THEN
    -- Null where the other job finished between the two statements: nothing is left to name.
    SELECT j.id INTO job_id FROM ingestd.jobs j WHERE j.shard = 0 AND j.unique_key = key;
  END IF;

  IF starts IS NOT NULL AND job_id IS NULL THEN
    DELETE FROM ingestd.unique_periods p WHERE p.shard = 0 AND p.unique_key = key;
  ELSIF starts IS NOT NULL THEN
    UPDATE ingestd.unique_periods p SET job_id = enqueue.job_id WHERE p.shard = 0 AND p.unique_key = key;
  END IF;
  RETURN NEXT;
END$$;
COMMENT ON FUNCTION ingestd.enqueue IS 'Inserts a job and says whether it did, or which job has the key: an unfinished one, or with unique_for the one enqueued in the same period, finished or not.';

-- ── dead letters by the group ───────────────────────────────────────────────

CREATE INDEX dead_jobs_group ON ingestd.dead_jobs (kind, fingerprint, id) WHERE replayed_at IS NULL;
CREATE INDEX dead_jobs_group_time ON ingestd.dead_jobs (kind, fingerprint, died_at) WHERE replayed_at IS NULL;
COMMENT ON INDEX ingestd.dead_jobs_group IS 'Walks the groups of what failed alike, and one group in the order of ids.';
COMMENT ON INDEX ingestd.dead_jobs_group_time IS 'First and last death of a group.';
