-- Products $2 were refused for collection $1, each for its reason of $3. They are tried again after
-- 1, 5, 30 and 120 minutes, and then kept.
INSERT INTO catalog.search_failures AS f (collection, product_id, error, retry_at)
SELECT DISTINCT ON (r.product_id) $1, r.product_id, r.error, now() + interval '1 min'
FROM unnest($2::int8[], $3::text[]) r (product_id, error)
ORDER BY r.product_id
ON CONFLICT (collection, product_id) DO UPDATE SET
  attempts  = least(f.attempts + 1, 32000),
  error     = excluded.error,
  failed_at = now(),
  retry_at  = now() + (ARRAY[interval '5 min', interval '30 min', interval '2 h'])[f.attempts]
