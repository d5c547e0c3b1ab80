-- Notes how far running attempts have come, all of one engine's in one statement.
-- $1 jobs, $2 leases, $3 attempts, $4 done, $5 total, $6 note. Fenced twice: what no longer has the
-- lease is left out, and where it is lost at this very moment an older lease never writes over a
-- newer one. A row that names no lease is that of a job leased in a batch, or of one that was given
-- back. The subquery leaves one plan, a look-up by primary key per row.
INSERT INTO ingestd.job_progress AS p (job_id, lease_id, attempt, n_done, n_total, note)
SELECT n.job_id, n.lease_id, n.attempt, n.n_done, n.n_total, n.note
FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (job_id, lease_id, attempt, n_done, n_total, note)
WHERE (SELECT CASE WHEN j.lease_id IS NULL THEN coalesce(j.last_lease_id, 0) < n.lease_id
                   ELSE j.lease_id = n.lease_id END
       FROM ingestd.jobs j WHERE j.shard = 0 AND j.id = n.job_id)
ON CONFLICT (job_id, shard) DO UPDATE
SET lease_id = excluded.lease_id, attempt = excluded.attempt, n_done = excluded.n_done,
    n_total = excluded.n_total, note = excluded.note, noted_at = excluded.noted_at
WHERE p.lease_id <= excluded.lease_id
