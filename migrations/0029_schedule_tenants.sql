-- Schedules belong to somebody: a tenant, whose their jobs are too, or the whole installation.
--
-- Rows that are there keep what they have: no tenant, which shows them to callers of all tenants
-- only, and gives their jobs none. Schedules of sources get their source's.

ALTER TABLE ingestd.schedules
  ADD COLUMN tenant text
    CONSTRAINT tenant_is_1_to_200_characters CHECK (length(tenant) BETWEEN 1 AND 200);
COMMENT ON COLUMN ingestd.schedules.tenant IS 'Owner of the schedule and of its jobs; null: it is the whole installation''s, and its jobs name no owner.';
COMMENT ON CONSTRAINT tenant_is_1_to_200_characters ON ingestd.schedules IS 'As of a source.';

-- A source's look is its source's tenant's, whoever writes the schedule: an older daemon does not
-- know the column.
CREATE FUNCTION catalog.own_schedule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.tenant := coalesce(
    (SELECT s.tenant FROM catalog.sources s WHERE s.name = NEW.args->>'source'), NEW.tenant);
  RETURN NEW;
END$$;
COMMENT ON FUNCTION catalog.own_schedule() IS 'Gives the schedule of a source its source''s tenant.';

CREATE TRIGGER own_schedule BEFORE INSERT OR UPDATE OF kind, args, tenant ON ingestd.schedules
  FOR EACH ROW WHEN (NEW.kind = 'catalog.fetch_source')
  EXECUTE FUNCTION catalog.own_schedule();
COMMENT ON TRIGGER own_schedule ON ingestd.schedules IS 'A source''s schedule is its tenant''s.';

-- Through the trigger, which fills it in.
UPDATE ingestd.schedules SET tenant = NULL WHERE kind = 'catalog.fetch_source';

-- As it was, but that a job of a schedule which names no owner gets its schedule's: an older
-- daemon's ticks come without.
CREATE OR REPLACE FUNCTION ingestd.enqueue(
  kind text, args jsonb DEFAULT '{}', queue text DEFAULT NULL, priority integer DEFAULT 1,
  run_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL,
  unique_key text DEFAULT NULL, tenant text DEFAULT NULL, meta jsonb DEFAULT NULL,
  gate_key text DEFAULT NULL, run_id bigint DEFAULT NULL, unique_for interval DEFAULT NULL
) RETURNS TABLE (job_id bigint, inserted boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE key text := unique_key; starts timestamptz; owner text := tenant;
BEGIN
  IF owner IS NULL AND meta ? 'schedule' THEN
    SELECT s.tenant INTO owner FROM ingestd.schedules s
    WHERE s.name = meta->>'schedule' AND s.kind = enqueue.kind;
  END IF;
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
          coalesce(run_at, now()), max_attempts, key, gate_key, run_id, owner, meta)
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

-- ── how long an import's traces are kept ────────────────────────────────────

ALTER TABLE catalog.imports
  ADD COLUMN traces text NOT NULL DEFAULT 'kept'
    CONSTRAINT traces_is_known CHECK (traces IN ('kept', 'going', 'gone'));
COMMENT ON COLUMN catalog.imports.traces IS 'What it takes to undo it (product_changes) and to mend its rejected rows (rejected_rows, import_errors). kept. going: it ended longer ago than product_import.retention_days, and they are being deleted. gone: they are.';
CREATE INDEX imports_traces ON catalog.imports (id) WHERE traces <> 'gone';
COMMENT ON INDEX catalog.imports_traces IS 'Imports whose traces will be deleted.';
