-- Fills what pages show with one text; returns an import's run and the run that undoes it.
WITH undo AS (
  INSERT INTO ingestd.runs (system, job_kind, tenant, triggered_by, state, stage, params,
                            items_total, items_ok, started_at, heartbeat_at)
  VALUES ('product_import', 'product_import.rollback', 'default', $1, 'running', $1,
          jsonb_build_object('import_id', 1, 'key', 'canary'), 10, 4, now(), now())
  RETURNING id),
run AS (
  INSERT INTO ingestd.runs (system, job_kind, tenant, triggered_by, state, error, params, details,
                            started_at, finished_at)
  VALUES ('product_import', 'product_import.run', 'default', $1, 'failed', $1,
          jsonb_build_object('file_name', $1, 'key', 'canary'),
          jsonb_build_object('preview', jsonb_build_object(
            'refusal', $1,
            'new', jsonb_build_array(jsonb_build_object(
              'row', 2, 'code', $1, 'values', jsonb_build_object($1, $1))),
            'changed', jsonb_build_array(jsonb_build_object(
              'row', 3, 'code', $1, 'changes',
              jsonb_build_object($1, jsonb_build_object('from', $1, 'to', $1)))))),
          now(), now())
  RETURNING id),
import AS (
  INSERT INTO catalog.imports (id, tenant, type, file_name, file_size_bytes, file_sha256,
                               error_count, created_count, rollback_run_id)
  SELECT run.id, 'default', 'PARTS', $1, 2048, decode(repeat('ab', 32), 'hex'), 2, 3, undo.id
  FROM run, undo RETURNING id),
fault AS (
  INSERT INTO catalog.import_errors (import_id, row_no, column_name, code, message, value)
  SELECT id, 5, $1, $1, $1, $1 FROM run),
kept AS (
  INSERT INTO catalog.kept_products (run_id, product_id, code, reason)
  SELECT id, 7, $1, 'edited' FROM undo),
queue AS (
  INSERT INTO ingestd.queues (queue) VALUES ($1)),
dead AS (
  INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason, error,
                                 fingerprint, created_at)
  SELECT id, CASE id WHEN 10 THEN 'system.noop' ELSE $1 END, '{"key": "canary"}', $1, 1, 3, 0,
         'fatal', $1, 7, now()
  FROM generate_series(8, 10) AS id),
schedule AS (
  INSERT INTO ingestd.schedules (name, cron, kind, last_error, next_at)
  VALUES ('hostile', '0 4 * * *', 'system.noop', $1, now() + interval '1 h'),
         ($1, '0 4 * * *', $1, $1, now() + interval '1 h'))
SELECT run.id, undo.id FROM run, undo
