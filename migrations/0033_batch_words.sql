-- How long a job that was claimed with many others says queued: it is settled at the second look.

COMMENT ON COLUMN ingestd.jobs.state IS 'queued: to be claimed once run_at has come. held: waits for its gate, or, as one that may kill workers, for its turn to run without its like. running: under a lease; one that was claimed with many others says queued for its first tenth of a second or two, see batch_leased.';
