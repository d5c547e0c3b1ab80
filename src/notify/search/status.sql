-- Where alias $1 stands; $2 whether a server is configured, $3 the configured fields.
SELECT $1 AS collection, $2 AS is_configured, x.live, x.building, coalesce(x.build_rows, 0) AS build_rows,
  x.build_began_at, x.synced_at, x.switched_at, coalesce(x.upserted, 0) AS upserted,
  coalesce(x.deleted, 0) AS deleted, x.wait_until, x.trouble, x.trouble_at,
  x.live IS NOT NULL AND x.live_fields IS DISTINCT FROM $3::text[] AS fields_changed,
  (SELECT coalesce(sum(n_products), 0)::int8
   FROM (SELECT n_products FROM catalog.search_outbox LIMIT 10001) n) AS noted,
  (SELECT noted_at FROM catalog.search_outbox ORDER BY seq LIMIT 1) AS oldest_note_at,
  (SELECT count(*) FROM (SELECT FROM catalog.search_failures
     WHERE collection = $1 AND retry_at IS NOT NULL LIMIT 10001) r) AS retrying,
  (SELECT count(*) FROM (SELECT FROM catalog.search_failures
     WHERE collection = $1 AND retry_at IS NULL LIMIT 10001) k) AS kept
FROM (SELECT) one LEFT JOIN catalog.search_indexes x ON x.alias = $1
