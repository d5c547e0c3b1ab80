-- Where a vacuum found the table empty and left its pages, the planner expects one row for as long as
-- nobody analyzes it, and takes whatever index costs least for that: of a deep jobs_ready and a
-- flatter jobs_pkey the latter, all of it by `shard = 0`, with a sort. A claim of the next burst read
-- every job. With shard beside the key and not in it, jobs_pkey answers by id alone.
CREATE UNIQUE INDEX jobs_id ON ingestd.jobs (id) INCLUDE (shard);
ALTER TABLE ingestd.jobs
  DROP CONSTRAINT jobs_pkey, ADD CONSTRAINT jobs_pkey PRIMARY KEY USING INDEX jobs_id;
COMMENT ON INDEX ingestd.jobs_pkey IS 'Jobs by id, and by nothing else.';
