-- Writes log lines of attempts. Not fenced: what a late attempt has to say harms nothing, and its
-- lease tells it from the others.
-- $1 jobs, $2 leases, $3 line numbers, $4 attempts, $5 levels, $6 messages, $7 their age in
-- milliseconds, $8 whether they may be there already, after an answer that was lost.
INSERT INTO ingestd.job_logs
  (job_id, lease_id, line_no, attempt, level, message, logged_at)
SELECT l.job_id, l.lease_id, l.line_no, l.attempt, l.level, l.message,
       now() - l.age_ms * interval '1 millisecond'
FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[], $6::text[],
            $7::bigint[]) AS l (job_id, lease_id, line_no, attempt, level, message, age_ms)
WHERE NOT $8 OR NOT EXISTS (
  SELECT FROM ingestd.job_logs o
  WHERE o.job_id = l.job_id AND o.lease_id = l.lease_id AND o.line_no = l.line_no)
