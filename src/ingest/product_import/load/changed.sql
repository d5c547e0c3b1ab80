-- The products of the codes $1 of the tenant $2, with what is live of each, in the codes' order;
-- nulls where there is none. Every LATERAL has one possible plan, a look-up by index, because of
-- its LIMIT.
SELECT p.id, p.archived, pp.price, pp.currency, ps.qty
FROM unnest($1::text[]) WITH ORDINALITY k (code, nth)
LEFT JOIN LATERAL (                         -- products_code
  SELECT id, archived_at IS NOT NULL AS archived FROM catalog.products
  WHERE code = k.code AND tenant = $2 LIMIT 1) p ON true
LEFT JOIN LATERAL (                         -- product_prices_live
  SELECT price, currency FROM catalog.product_prices
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (                         -- product_stocks_live
  SELECT qty FROM catalog.product_stocks
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) ps ON true
ORDER BY k.nth
