-- The products refused for collection $1 that are due again, at most $2, as they are now.
SELECT NULL::int8 AS seq, n.product_id, p.id IS NOT NULL AND p.archived_at IS NULL AS is_live,
       p.tenant, p.code, p.name, p.description, p.brand, p.category, p.ean, p.url, p.weight,
       extract(epoch FROM p.source_updated_at)::int8 AS updated_at, pp.price, pp.currency, ps.qty
FROM (SELECT product_id FROM catalog.search_failures          -- search_failures_due
      WHERE collection = $1 AND retry_at <= now() ORDER BY retry_at LIMIT $2) n
LEFT JOIN LATERAL (SELECT * FROM catalog.products WHERE id = n.product_id LIMIT 1) p ON true
LEFT JOIN LATERAL (
  SELECT price, currency FROM catalog.product_prices
  WHERE product_id = n.product_id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (
  SELECT qty FROM catalog.product_stocks
  WHERE product_id = n.product_id AND archived_at IS NULL LIMIT 1) ps ON true
