-- A running job with something in every part, a dead one of system.noop beside those of the pages,
-- a minute of figures, a product that the search server refused, and an import that can be undone.
WITH job AS (
  INSERT INTO ingestd.jobs (kind, state, lease_id, worker_id, attempt, started_at, last_error, meta)
  VALUES ('system.noop', 'running', 1, 1, 2, now(), 'why', '{"a": 1}') RETURNING id),
step AS (
  INSERT INTO ingestd.job_steps (job_id, step, result, lease_id, attempt)
  SELECT id, 'first', '{"n": 1}', 1, 1 FROM job),
progress AS (
  INSERT INTO ingestd.job_progress (job_id, lease_id, attempt, n_done, n_total, note)
  SELECT id, 1, 2, 3, 4, 'half' FROM job),
line AS (
  INSERT INTO ingestd.job_logs (job_id, lease_id, line_no, attempt, level, message, logged_at)
  SELECT id, 1, 1, 1, 'warn', 'hm', now() FROM job)
INSERT INTO ingestd.job_attempts (shard, job_id, kind, attempt, outcome, error_kind, error)
SELECT 0, id, 'system.noop', 1, 'retry', 'other', 'why' FROM job;

INSERT INTO ingestd.job_history
  (shard, id, kind, queue, state, priority, attempt, args, created_at, run_at)
VALUES (0, 1001, 'system.noop', 'default', 'completed', 1, 1, '{}', now(), now());

INSERT INTO ingestd.job_stats (minute, kind, queue, outcome, n_jobs, duration_ms, wait_ms, buckets)
VALUES (date_trunc('minute', now()), 'system.noop', 'default', 'success', 1, 2, 3, '{0,0,0,1,0,0,0}');

INSERT INTO catalog.search_failures (collection, product_id, error) VALUES ('products', 1, 'because');

WITH run AS (
  INSERT INTO ingestd.runs (system, tenant, triggered_by, state, started_at, finished_at)
  VALUES ('product_import', 'default', 'test', 'completed', now(), now()) RETURNING id),
import AS (
  INSERT INTO catalog.imports (id, tenant, type, file_name, file_size_bytes, file_sha256, error_count)
  SELECT id, 'default', 'PARTS', 'a.csv', 1, sha256(''), 1 FROM run)
INSERT INTO catalog.import_errors (import_id, row_no, column_name, code, message, value)
SELECT id, 5, 'code', 'required', 'is missing', NULL FROM run;
