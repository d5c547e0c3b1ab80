-- A due time is a time. 'infinity' parked a job for ever where nobody would look for it, and
-- '-infinity' could not be claimed: no time since it was due can be told.

UPDATE ingestd.jobs SET run_at = now() WHERE NOT isfinite(run_at);
ALTER TABLE ingestd.jobs
  ADD CONSTRAINT run_at_is_a_time CHECK (isfinite(run_at)),
  ADD CONSTRAINT created_at_is_a_time CHECK (isfinite(created_at));
