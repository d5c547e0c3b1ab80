-- Queues whose tenants take turns. A limit across daemons they had a column for already.

ALTER TABLE ingestd.queues ADD COLUMN fair boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ingestd.queues.fair IS 'Tenants take turns within each priority, however many jobs one of them has; those without a tenant count as one.';

CREATE INDEX jobs_turn ON ingestd.jobs (shard, queue, priority, tenant, run_at, id)
  WHERE state = 'queued' AND tenant IS NOT NULL;
COMMENT ON INDEX ingestd.jobs_turn IS 'The next job of each tenant, for fair queues. A job without a tenant has no entry and pays nothing.';
