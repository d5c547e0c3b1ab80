-- Which rows of a slice are new or changed, and what is live of the changed ones.
-- $1 codes, $2 hashes in the same order, $3 tenant. Unchanged rows do not come back.
-- Every LATERAL has one possible plan, a look-up by index, because of its LIMIT.
SELECT (k.nth - 1)::int4, p.id, pp.price, pp.currency, ps.qty
FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY k (code, row_hash, nth)
LEFT JOIN LATERAL (                         -- products_code
  SELECT id, row_hash, archived_at FROM catalog.products
  WHERE tenant = $3 AND code = k.code LIMIT 1) p ON true
LEFT JOIN LATERAL (                         -- product_prices_live
  SELECT price, currency FROM catalog.product_prices
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (                         -- product_stocks_live
  SELECT qty FROM catalog.product_stocks
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) ps ON true
-- An archived product is changed by appearing again, whatever its hash.
WHERE p.row_hash IS DISTINCT FROM k.row_hash OR p.archived_at IS NOT NULL
