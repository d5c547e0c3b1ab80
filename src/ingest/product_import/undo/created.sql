-- The next $5 products by id after $3 and up to $4: each one's id, whether the import $1 of the owner
-- $2 created it and it is still live, its code, and the reason why it is to stay, null where it can
-- be archived. Plans as in changed.sql.
SELECT p.id, p.code,
       coalesce(p.tenant = $2 AND p.import_id = $1 AND p.archived_at IS NULL AND c.product_id IS NULL, false),
       CASE WHEN p.row_hash IS NULL OR pp.import_id IS DISTINCT FROM $1 AND pp.price IS NOT NULL
              OR ps.import_id IS DISTINCT FROM $1 AND ps.qty IS NOT NULL THEN 'edited' END
FROM (                                      -- products_pkey
  SELECT id, tenant, code, import_id, archived_at, row_hash FROM catalog.products
  WHERE id > $3 AND id <= $4 ORDER BY id LIMIT $5) p
LEFT JOIN LATERAL (                         -- product_changes_pkey
  SELECT product_id FROM catalog.product_changes
  WHERE import_id = $1 AND product_id = p.id LIMIT 1) c ON true
LEFT JOIN LATERAL (                         -- product_prices_live
  SELECT price, import_id FROM catalog.product_prices
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (                         -- product_stocks_live
  SELECT qty, import_id FROM catalog.product_stocks
  WHERE product_id = p.id AND archived_at IS NULL LIMIT 1) ps ON true
ORDER BY p.id
