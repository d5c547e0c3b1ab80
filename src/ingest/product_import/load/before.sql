-- What the products $1 are before the import $2 changes them and leaves the hashes $3; null: the
-- hash stays. A product that the import wrote
-- itself already has its row, or was created by it and needs none. Plans as in changed.sql.
INSERT INTO catalog.product_changes
  (import_id, product_id, was_import_id, name, description, brand, category, ean, url, weight,
   source_updated_at, attributes, row_hash, wrote_hash, archived_at, price, currency, price_import_id, qty,
   qty_import_id)
SELECT $2, p.id, p.import_id, p.name, p.description, p.brand, p.category, p.ean, p.url, p.weight,
       p.source_updated_at, p.attributes, p.row_hash,
       coalesce(k.hash, p.row_hash), p.archived_at, pp.price, pp.currency,
       pp.import_id, ps.qty, ps.import_id
FROM unnest($1::int8[], $3::int8[]) k (id, hash)
CROSS JOIN LATERAL (                        -- products_pkey
  SELECT * FROM catalog.products WHERE id = k.id LIMIT 1) p
LEFT JOIN LATERAL (                         -- product_prices_live
  SELECT price, currency, import_id FROM catalog.product_prices
  WHERE product_id = k.id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (                         -- product_stocks_live
  SELECT qty, import_id FROM catalog.product_stocks
  WHERE product_id = k.id AND archived_at IS NULL LIMIT 1) ps ON true
WHERE p.import_id IS DISTINCT FROM $2
