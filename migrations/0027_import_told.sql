-- Whoever is told of an import is told whether it wrote: a dry run counts what it would have done,
-- and its counts looked like products that are there. As before but for mode, dry_run and
-- archived_count.
CREATE OR REPLACE FUNCTION ingestd.tell_of_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE imported jsonb;
BEGIN
  IF NOT EXISTS (SELECT FROM ingestd.webhooks WHERE paused_at IS NULL AND tenant = NEW.tenant) THEN
    RETURN NULL;
  END IF;
  SELECT jsonb_build_object('import', jsonb_build_object(
      'file_name', left(i.file_name, 1000), 'file_size_bytes', i.file_size_bytes,
      'mode', i.mode, 'dry_run', i.dry_run,
      'created_count', i.created_count, 'updated_count', i.updated_count,
      'unchanged_count', i.unchanged_count, 'success_count', i.success_count,
      'archived_count', i.archived_count, 'error_count', i.error_count))
  INTO imported FROM catalog.imports i WHERE i.id = NEW.id;
  -- A run may end again after a reset: when it did is part of the message's name.
  INSERT INTO ingestd.jobs (kind, queue, tenant, gate_key, args)
  SELECT 'system.webhook', 'webhooks', w.tenant, 'webhook:' || w.id, jsonb_build_object(
    'webhook', w.id, 'message', format('msg_run_%s_%s_%s', NEW.id, NEW.state,
      (extract(epoch FROM NEW.finished_at) * 1000000)::bigint),
    'type', 'run.' || NEW.state, 'timestamp', NEW.finished_at,
    'data', coalesce(imported, '{}') || jsonb_build_object('run', jsonb_build_object(
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
