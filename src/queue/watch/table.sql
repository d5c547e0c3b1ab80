-- The live table's dead rows and sizes: statistics and file sizes, no scan.
SELECT coalesce(s.n_live_tup, 0) AS live_rows,
       coalesce(s.n_dead_tup, 0) AS dead_rows,
       pg_table_size(c.oid)      AS table_bytes,
       pg_indexes_size(c.oid)    AS index_bytes,
       greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at,
       extract(epoch FROM clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum))::float8
         AS vacuum_age_secs,
       EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.relid = c.oid) AS in_vacuum,
       current_setting('autovacuum')::boolean
         AND NOT coalesce('autovacuum_enabled=false' = ANY (c.reloptions)
                       OR 'autovacuum_enabled=off' = ANY (c.reloptions), false) AS has_autovacuum
FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.oid = 'ingestd.jobs'::regclass
