-- Gates: how many jobs with one key run at once, and how many start in a second.

CREATE TABLE ingestd.gates (
  pattern      text PRIMARY KEY CHECK (pattern <> '' AND length(pattern) <= 1024),
  max_running  integer CHECK (max_running > 0),
  rate_per_sec double precision CHECK (rate_per_sec BETWEEN 0.000001 AND 100000),
  burst        integer CHECK (burst BETWEEN 1 AND 1000000),
  origin       text NOT NULL DEFAULT 'user' CHECK (origin IN ('user', 'config')),
  paused_at    timestamptz,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT a_burst_has_a_rate CHECK (burst IS NULL OR rate_per_sec IS NOT NULL)
);
COMMENT ON TABLE  ingestd.gates IS 'Limits of gate keys. The most specific pattern counts: the key itself, else the longest prefix. A key that none fits runs one job at a time.';
COMMENT ON COLUMN ingestd.gates.pattern IS 'A key, or with * at its end the prefix of keys; the limits hold for each key by itself.';
COMMENT ON COLUMN ingestd.gates.max_running IS 'Most jobs of a key admitted or running at once across all daemons; null: no limit.';
COMMENT ON COLUMN ingestd.gates.rate_per_sec IS 'Jobs of a key that start per second in the long run; null: no limit.';
COMMENT ON COLUMN ingestd.gates.burst IS 'Jobs that may start at once after a quiet time; null: the rate of one second, at least 1.';
COMMENT ON COLUMN ingestd.gates.origin IS 'user: somebody set it, and configurations leave it alone. config: the configuration of the daemon that started last has it so.';
COMMENT ON COLUMN ingestd.gates.paused_at IS 'Set while paused: no job of its keys starts; what runs goes on.';
COMMENT ON COLUMN ingestd.gates.created_at IS 'When it was made.';
COMMENT ON COLUMN ingestd.gates.updated_at IS 'When its limits last changed.';

CREATE TABLE ingestd.gate_tokens (
  gate_key text PRIMARY KEY,
  full_at  timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE  ingestd.gate_tokens IS 'What is left of a key''s rate; a key without a row has its whole burst. Written once per admission, not per job.';
COMMENT ON COLUMN ingestd.gate_tokens.gate_key IS 'The key.';
COMMENT ON COLUMN ingestd.gate_tokens.full_at IS 'When its whole burst will be there again. Further away than an empty bucket takes to fill, because the clock was set back, it counts as empty now.';

-- Sessions of the queue may not read a table from end to end.
CREATE INDEX queues_paused ON ingestd.queues (queue) WHERE paused_at IS NOT NULL;
COMMENT ON INDEX ingestd.queues_paused IS 'The paused ones, for those that skip their jobs.';

CREATE FUNCTION ingestd.gate_of(key text) RETURNS TABLE (
  pattern text, max_running integer, rate_per_sec double precision, burst integer, paused boolean
) LANGUAGE sql STABLE AS $$
  SELECT g.pattern, CASE WHEN g.pattern IS NULL THEN 1 ELSE g.max_running END, g.rate_per_sec,
         coalesce(g.burst, greatest(ceil(g.rate_per_sec), 1)::integer), g.paused_at IS NOT NULL
  FROM (SELECT) one LEFT JOIN LATERAL (
    SELECT * FROM ingestd.gates
    WHERE gates.pattern = ANY (ARRAY(
      SELECT gate_of.key UNION ALL
      SELECT left(gate_of.key, n) || '*' FROM generate_series(0, length(gate_of.key)) n))
    ORDER BY gates.pattern = gate_of.key DESC, length(gates.pattern) DESC LIMIT 1) g ON true
$$;
COMMENT ON FUNCTION ingestd.gate_of(text) IS 'The limits of a key, always one row: of the key itself, else of the longest prefix, else one at a time (pattern null).';

-- ── what is inserted with a key is held ─────────────────────────────────────

CREATE FUNCTION ingestd.hold_gated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE seen text;
BEGIN
  IF NEW.gate_key = '' THEN
    NEW.gate_key := NULL;
    RETURN NEW;
  END IF;
  NEW.state := 'held';
  IF NEW.run_at <= now() THEN
    -- Tells wake_gates whom to wake: one key, or that there are several.
    seen := current_setting('ingestd.gated', true);
    IF coalesce(seen, '') = '' THEN
      PERFORM set_config('ingestd.gated', '=' || NEW.gate_key, true);
    ELSIF seen <> '*' AND seen <> '=' || NEW.gate_key THEN
      PERFORM set_config('ingestd.gated', '*', true);
    END IF;
  END IF;
  RETURN NEW;
END$$;
COMMENT ON FUNCTION ingestd.hold_gated() IS 'Holds a new job with a gate key until its gate admits it; an empty key is none.';

CREATE FUNCTION ingestd.wake_gates() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE gated text := current_setting('ingestd.gated', true);
BEGIN
  PERFORM set_config('ingestd.gated', '', true);
  -- A hint, as those of after_enqueue are, and under a try-lock for the same reason.
  IF pg_notification_queue_usage() < 0.5
     AND pg_try_advisory_xact_lock(1229866838, hashtext(gated)) THEN
    PERFORM pg_notify('ingestd_gate', CASE WHEN gated = '*' THEN '' ELSE substr(gated, 2) END);
  END IF;
  RETURN NULL;
END$$;
COMMENT ON FUNCTION ingestd.wake_gates() IS 'Wakes the keepers of gates, once per statement that held a due job.';

-- Named to run after fill_queue. Jobs without a key pay for a look at a null.
CREATE TRIGGER hold_gated BEFORE INSERT ON ingestd.jobs
  FOR EACH ROW WHEN (NEW.gate_key IS NOT NULL AND NEW.state = 'queued')
  EXECUTE FUNCTION ingestd.hold_gated();

-- Statements without a gated job pay for a look at a setting; a transition table would have to be
-- searched for one.
CREATE TRIGGER wake_gates AFTER INSERT ON ingestd.jobs
  FOR EACH STATEMENT WHEN (current_setting('ingestd.gated', true) <> '')
  EXECUTE FUNCTION ingestd.wake_gates();

-- What waited under the older schema had no gate to wait for.
UPDATE ingestd.jobs SET gate_key = NULL WHERE shard = 0 AND gate_key = '';
ALTER TABLE ingestd.jobs ADD CONSTRAINT gate_key_is_not_empty CHECK (gate_key <> '');
UPDATE ingestd.jobs SET state = 'held'
WHERE shard = 0 AND gate_key IS NOT NULL AND state = 'queued';
