-- Products noted for the search server, in the first $1 notes, and those it refused, up to $1.
SELECT
  (SELECT coalesce(sum(n_products), 0)::int8
   FROM (SELECT n_products FROM catalog.search_outbox LIMIT $1) n) AS noted,
  coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - noted_at), 0)::float8
            FROM catalog.search_outbox ORDER BY seq LIMIT 1), 0) AS lag_seconds,
  (SELECT count(*) FROM (SELECT FROM catalog.search_failures
                         WHERE retry_at IS NOT NULL LIMIT $1) r) AS retrying,
  (SELECT count(*) FROM (SELECT FROM catalog.search_failures
                         WHERE retry_at IS NULL LIMIT $1) k) AS kept
