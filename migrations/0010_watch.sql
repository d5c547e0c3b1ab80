-- What the daemon watches: depth by index, figures per minute, partitions that nothing blocks.

COMMENT ON TABLE ingestd.job_stats IS 'Attempts per minute, kind, queue and outcome. Daemons add to it every few seconds, so that no page and no gauge counts rows.';
COMMENT ON COLUMN ingestd.job_stats.minute IS 'Start of the minute in which the attempts ended, on the database''s clock; right to within five seconds.';
-- The rows of this minute are updated every few seconds by every daemon: room for that on their
-- page, and no index holds what changes.
ALTER TABLE ingestd.job_stats SET (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000
);

CREATE INDEX jobs_held_queue ON ingestd.jobs (shard, queue) WHERE state = 'held';
COMMENT ON INDEX ingestd.jobs_held_queue IS 'How many jobs of a queue are held, counted up to a limit.';

-- ── partitions ──────────────────────────────────────────────────────────────
-- Whatever is partitioned by time and has a default partition is looked after, in the order of
-- the names: others lock the tables in this order too.

CREATE FUNCTION ingestd.daily_tables() RETURNS TABLE (parent text, key text) LANGUAGE sql STABLE AS $$
  SELECT c.relname::text, a.attname::text
  FROM pg_partitioned_table t
  JOIN pg_class c ON c.oid = t.partrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = t.partattrs[0]
  WHERE n.nspname = 'ingestd' AND t.partstrat = 'r' AND t.partnatts = 1
    AND a.atttypid = 'timestamptz'::regtype
    AND to_regclass(format('ingestd.%I', c.relname || '_default')) = t.partdefid
  ORDER BY c.relname
$$;
COMMENT ON FUNCTION ingestd.daily_tables() IS 'The tables with a partition per day of UTC, and the column it goes by.';

CREATE FUNCTION ingestd.make_partition(parent text, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  part text := parent || '_' || to_char(day, 'YYYYMMDD');
  begins timestamptz := day::timestamp AT TIME ZONE 'UTC';
  ends timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
  key text := (SELECT d.key FROM ingestd.daily_tables() d WHERE d.parent = make_partition.parent);
  -- While the day lasts, whoever completes a job waits until the rows are moved: not for many.
  -- They are found again when it is over, and then nobody waits.
  most integer := CASE WHEN ends <= now() THEN 1000000 ELSE 20000 END;
  found integer;
BEGIN
  IF key IS NULL THEN
    RAISE EXCEPTION 'ingestd.% has no partition per day', parent;
  END IF;
  -- Made apart and attached: to attach, unlike CREATE TABLE … PARTITION OF, lets others write to
  -- the parent. Only the default partition is locked, which nobody writes to while each day has
  -- its own; first of all, so that no row slips in behind those that are moved.
  EXECUTE format('LOCK TABLE ingestd.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
  IF to_regclass(format('ingestd.%I', part)) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('SELECT count(*) FROM (SELECT FROM ingestd.%I WHERE %I >= $1 AND %I < $2 LIMIT $3) few',
    parent || '_default', key, key)
  INTO found USING begins, ends, most + 1;
  IF found > most THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE ingestd.%I (LIKE ingestd.%I INCLUDING ALL EXCLUDING IDENTITY)', part, parent);
  IF found > 0 THEN
    EXECUTE format('WITH moved AS (DELETE FROM ingestd.%I WHERE %I >= $1 AND %I < $2 RETURNING *)
                    INSERT INTO ingestd.%I OVERRIDING SYSTEM VALUE SELECT * FROM moved',
      parent || '_default', key, key, part) USING begins, ends;
  END IF;
  EXECUTE format('ALTER TABLE ingestd.%I ATTACH PARTITION ingestd.%I FOR VALUES FROM (%L) TO (%L)',
    parent, part, begins, ends);
  RETURN true;
END$$;
COMMENT ON FUNCTION ingestd.make_partition(text, date) IS 'Makes the partition of one day, with the rows of that day that are in the default partition; returns whether it did: not where it exists, and not where too many rows would be moved.';

CREATE FUNCTION ingestd.missing_partitions(days_ahead integer) RETURNS TABLE (parent text, day date)
LANGUAGE plpgsql STABLE AS $$
DECLARE daily record;
BEGIN
  FOR daily IN SELECT * FROM ingestd.daily_tables() LOOP
    -- The default partition is empty but for days on which nothing made partitions.
    RETURN QUERY EXECUTE format(
      'SELECT %L::text, d.day FROM (
         SELECT generate_series($1, $1 + $2, interval ''1 day'')::date AS day
         UNION
         SELECT DISTINCT (%I AT TIME ZONE ''UTC'')::date FROM ingestd.%I WHERE %I < $1::timestamp AT TIME ZONE ''UTC''
       ) d WHERE to_regclass(format(''ingestd.%%I'', %L || to_char(d.day, ''YYYYMMDD''))) IS NULL
       ORDER BY d.day < $1, d.day',
      daily.parent, daily.key, daily.parent || '_default', daily.key, daily.parent || '_')
    USING (now() AT TIME ZONE 'UTC')::date, days_ahead;
  END LOOP;
END$$;
COMMENT ON FUNCTION ingestd.missing_partitions(integer) IS 'Days that want a partition: today, the days ahead, and past days of which the default partition has rows; today comes first, the past last.';

CREATE OR REPLACE FUNCTION ingestd.make_partitions(days_ahead integer DEFAULT 3) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE missing record; made integer := 0;
BEGIN
  FOR missing IN SELECT * FROM ingestd.missing_partitions(days_ahead) LOOP
    IF ingestd.make_partition(missing.parent, missing.day) THEN made := made + 1; END IF;
  END LOOP;
  RETURN made;
END$$;
COMMENT ON FUNCTION ingestd.make_partitions(integer) IS 'Makes all partitions that are missing, in the caller''s transaction; returns how many.';

CREATE FUNCTION ingestd.old_partitions(keep_days integer) RETURNS TABLE (parent text, part text) LANGUAGE sql STABLE AS $$
  SELECT d.parent, c.relname::text
  FROM ingestd.daily_tables() d
  JOIN pg_inherits i ON i.inhparent = format('ingestd.%I', d.parent)::regclass
  JOIN pg_class c ON c.oid = i.inhrelid
  WHERE c.relname ~ ('^' || d.parent || '_[0-9]{8}$')
    -- as text: conditions have no order, and what is no date must not be read as one
    AND right(c.relname, 8) < to_char((now() AT TIME ZONE 'UTC')::date - keep_days, 'YYYYMMDD')
  ORDER BY right(c.relname, 8), d.parent
$$;
COMMENT ON FUNCTION ingestd.old_partitions(integer) IS 'Daily partitions older than keep_days, oldest first.';

CREATE FUNCTION ingestd.drop_partition(part text) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  -- Only what is a partition by day: the name comes from a list, but a slip must not cost a table.
  IF part !~ '_[0-9]{8}$' OR NOT EXISTS (
      SELECT FROM ingestd.daily_tables() d WHERE d.parent = left(part, -9)) THEN
    RAISE EXCEPTION '% is no daily partition', part;
  END IF;
  IF to_regclass(format('ingestd.%I', part)) IS NULL THEN RETURN 0; END IF;
  EXECUTE format('DROP TABLE ingestd.%I', part);
  RETURN 1;
END$$;
COMMENT ON FUNCTION ingestd.drop_partition(text) IS 'Drops one daily partition; returns 0 where it is gone already. Waits for whoever reads the table, and everybody else for it: set lock_timeout.';

CREATE OR REPLACE FUNCTION ingestd.drop_partitions(keep_days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE old record; dropped integer := 0;
BEGIN
  FOR old IN SELECT * FROM ingestd.old_partitions(keep_days) LOOP
    dropped := dropped + ingestd.drop_partition(old.part);
  END LOOP;
  RETURN dropped;
END$$;
COMMENT ON FUNCTION ingestd.drop_partitions(integer) IS 'Drops daily partitions older than keep_days, oldest first, in the caller''s transaction; returns how many.';
