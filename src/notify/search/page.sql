-- The live products after id $1, at most $2, as they are now.
SELECT NULL::int8 AS seq, p.id AS product_id, true AS is_live,
       p.tenant, p.code, p.name, p.description, p.brand, p.category, p.ean, p.url, p.weight,
       extract(epoch FROM p.source_updated_at)::int8 AS updated_at, pp.price, pp.currency, ps.qty
FROM (SELECT * FROM catalog.products                          -- products_pkey
      WHERE id > $1 AND archived_at IS NULL ORDER BY id LIMIT $2) p
LEFT JOIN LATERAL (
  SELECT price, currency FROM catalog.product_prices
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (
  SELECT qty FROM catalog.product_stocks
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) ps ON true
ORDER BY p.id
