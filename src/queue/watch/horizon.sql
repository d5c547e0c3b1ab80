-- Who keeps vacuum from removing dead rows of this database, the worst first, at most 20.
-- The row versions that die after the oldest of these stay, however often vacuum runs. Left out is
-- vacuum itself, which waits for nobody on its own account. A transaction of another database
-- counts where it has written, since our snapshots wait for it. Ages in transactions are visible
-- to everybody; times, states and texts of other users' sessions to members of pg_read_all_stats.
SELECT holder, pid, name, owner, state, transactions, secs, since, query FROM (
  SELECT CASE WHEN backend_type = 'walsender' THEN 'standby' ELSE 'transaction' END AS holder,
         pid, coalesce(application_name, '') AS name, usename::text AS owner, state,
         greatest(age(backend_xid), age(backend_xmin))::bigint AS transactions,
         extract(epoch FROM clock_timestamp() - xact_start)::float8 AS secs,
         xact_start AS since, left(query, 2000) AS query
  FROM pg_stat_activity
  WHERE (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
    AND (datname = current_database() OR backend_xid IS NOT NULL OR backend_type = 'walsender')
    AND pid <> pg_backend_pid() AND backend_type IS DISTINCT FROM 'autovacuum worker'
    AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
  UNION ALL
  SELECT 'prepared', NULL, gid, owner::text, 'prepared', age(transaction),
         extract(epoch FROM clock_timestamp() - prepared)::float8, prepared, NULL
  FROM pg_prepared_xacts
  UNION ALL
  SELECT 'replication_slot', active_pid, slot_name::text, NULL,
         CASE WHEN active THEN 'active' ELSE 'inactive' END, age(xmin), NULL, NULL, NULL
  FROM pg_replication_slots WHERE xmin IS NOT NULL
) holders
ORDER BY transactions DESC, secs DESC NULLS LAST
LIMIT 20
