-- What a gate lets through now: its limits, what is in it, what is left of its rate.
-- $1 key, $2 most jobs to count. Slots in use are counted as admissions count them.
SELECT g.pattern, g.max_running, g.rate_per_sec, g.paused,
       (SELECT count(*) FROM (
          SELECT FROM ingestd.jobs j
          WHERE j.shard = 0 AND j.gate_key = $1 AND j.state <> 'held' LIMIT $2) used) AS n_used,
       (g.burst - extract(epoch FROM greatest(t.full_at - clock_timestamp(), interval '0'))
                  * g.rate_per_sec)::double precision AS tokens
FROM ingestd.gate_of($1) g LEFT JOIN ingestd.gate_tokens t ON t.gate_key = $1
