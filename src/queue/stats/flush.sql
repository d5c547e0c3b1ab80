-- Adds sums to the figures of their minutes. A row each in $1 to $7: age in milliseconds, kind,
-- queue, outcome, attempts, run times and waits in milliseconds; $8 has seven buckets a row.
-- The minute is the database's: now, less the age that the daemon measured. Rows that come to the
-- same minute are put together first, since no statement updates a row twice; in the order of the
-- key, so that daemons which write the same rows wait for each other and never in a circle.
INSERT INTO ingestd.job_stats AS s
  (minute, kind, queue, outcome, n_jobs, duration_ms, wait_ms, buckets)
SELECT date_trunc('minute', now() - f.age_ms * interval '1 millisecond', 'UTC'),
       f.kind, f.queue, f.outcome,
       sum(f.n_jobs), sum(f.duration_ms), sum(f.wait_ms),
       ARRAY[sum(($8::bigint[])[f.place * 7 - 6]), sum(($8::bigint[])[f.place * 7 - 5]),
             sum(($8::bigint[])[f.place * 7 - 4]), sum(($8::bigint[])[f.place * 7 - 3]),
             sum(($8::bigint[])[f.place * 7 - 2]), sum(($8::bigint[])[f.place * 7 - 1]),
             sum(($8::bigint[])[f.place * 7])]::bigint[]
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
            $7::bigint[]) WITH ORDINALITY
  AS f (age_ms, kind, queue, outcome, n_jobs, duration_ms, wait_ms, place)
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
ON CONFLICT (minute, kind, queue, outcome) DO UPDATE
SET n_jobs = s.n_jobs + excluded.n_jobs,
    duration_ms = s.duration_ms + excluded.duration_ms,
    wait_ms = s.wait_ms + excluded.wait_ms,
    buckets = ARRAY[s.buckets[1] + excluded.buckets[1], s.buckets[2] + excluded.buckets[2],
                    s.buckets[3] + excluded.buckets[3], s.buckets[4] + excluded.buckets[4],
                    s.buckets[5] + excluded.buckets[5], s.buckets[6] + excluded.buckets[6],
                    s.buckets[7] + excluded.buckets[7]]
