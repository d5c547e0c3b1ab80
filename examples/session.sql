-- The queue by SQL alone, beside a running daemon:
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f examples/session.sql
--
-- A job is a row; all that is needed is its kind. Everything here takes part in transactions: a
-- job that is inserted in one that rolls back never was. system.noop is a kind of every daemon; its
-- arguments say how it is to end.

-- 1. Enqueue: an INSERT, a COPY, or the function, which says what it did.
INSERT INTO ingestd.jobs (kind) VALUES ('system.noop');
INSERT INTO ingestd.jobs (kind, args)
SELECT 'system.noop', jsonb_build_object('payload', n) FROM generate_series(1, 100) AS n;
SELECT job_id AS first FROM ingestd.enqueue('system.noop', '{"payload": "hello"}') \gset

-- 2. Later, and urgent: 0 urgent, 1 normal, 2 low, 3 background.
SELECT job_id AS later FROM ingestd.enqueue('system.noop', run_at => now() + interval '1 hour') \gset
SELECT job_id FROM ingestd.enqueue('system.noop', priority => 0);

-- 3. Unique while unfinished: the second finds the first. Unique in a period: once a day.
SELECT * FROM ingestd.enqueue('system.noop', run_at => now() + interval '1 day', unique_key => 'report:42');
SELECT * FROM ingestd.enqueue('system.noop', unique_key => 'report:42');
SELECT * FROM ingestd.enqueue('system.noop', unique_key => 'digest:42', unique_for => '1 day');
SELECT * FROM ingestd.enqueue('system.noop', unique_key => 'digest:42', unique_for => '1 day');

-- 4. By the clock: each tick becomes one job, however many daemons run.
INSERT INTO ingestd.schedules (name, cron, timezone, kind, args)
VALUES ('tidy-up', '30 3 * * *', 'Europe/Prague', 'system.noop', '{"payload": "tidy"}')
ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, next_at = NULL, updated_at = now();
UPDATE ingestd.schedules SET paused_at = now() WHERE name = 'tidy-up';

-- 5. Cancel: one that waits is gone at once, one that runs is told to stop.
SELECT ingestd.cancel(:later);

-- 6. Pause a queue, and let it go on.
INSERT INTO ingestd.queues (queue, paused_at) VALUES ('default', now())
ON CONFLICT (queue) DO UPDATE SET paused_at = excluded.paused_at;
UPDATE ingestd.queues SET paused_at = NULL WHERE queue = 'default';

-- 7. Results. A job that ended has left ingestd.jobs for ingestd.job_history; ingestd.all_jobs
-- shows it wherever it is. This waits, as a script must; a person looks again.
INSERT INTO ingestd.jobs (kind, args) VALUES ('system.noop', '{"outcome": "fatal"}')
RETURNING id AS failing \gset
SELECT set_config('session.first', :'first', false), set_config('session.failing', :'failing', false) \g /dev/null
DO $$ BEGIN
  FOR look IN 1..600 LOOP
    EXIT WHEN EXISTS (SELECT FROM ingestd.job_history WHERE id = current_setting('session.first')::bigint)
          AND EXISTS (SELECT FROM ingestd.dead_jobs WHERE id = current_setting('session.failing')::bigint);
    PERFORM pg_sleep(0.1);
  END LOOP;
END $$;
SELECT id, state, attempt, args, finished_at - created_at AS took
FROM ingestd.job_history WHERE id = :first;
SELECT state, count(*) FROM ingestd.all_jobs WHERE kind = 'system.noop' GROUP BY state ORDER BY state;

-- 8. Dead letters: what was given up, grouped by what went wrong; and why each attempt failed.
SELECT fingerprint, count(*), min(error) AS error FROM ingestd.dead_jobs
WHERE replayed_at IS NULL GROUP BY fingerprint;
SELECT attempt, outcome, error FROM ingestd.job_attempts WHERE job_id = :failing;
SELECT ingestd.replay(:failing, args => '{"outcome": "ok"}') AS replayed_as;

-- 9. Who did what.
SELECT actor, action, object FROM ingestd.audit_log ORDER BY id DESC LIMIT 2;
