-- The changes that the import $1 made to the products $2, each with the reason why it is to stay,
-- null where it can be undone; whether its price and its stock are to be put back; its code.
-- Plans as in changed.sql.
SELECT k.id,
       CASE WHEN p.id IS NULL                                THEN 'deleted'
            WHEN p.import_id IS DISTINCT FROM $1             THEN 'imported_again'
            WHEN p.row_hash IS DISTINCT FROM c.wrote_hash    THEN 'edited'
            WHEN NOT (price.is_same OR price.is_ours)        THEN 'edited'
            WHEN NOT (stock.is_same OR stock.is_ours)        THEN 'edited' END,
       NOT price.is_same, NOT stock.is_same, p.code
FROM unnest($2::int8[]) k (id)
CROSS JOIN LATERAL (                        -- product_changes_pkey
  SELECT * FROM catalog.product_changes WHERE import_id = $1 AND product_id = k.id LIMIT 1) c
LEFT JOIN LATERAL (                         -- products_pkey
  SELECT id, import_id, row_hash, code FROM catalog.products WHERE id = k.id LIMIT 1) p ON true
LEFT JOIN LATERAL (                         -- product_prices_live
  SELECT price, currency, import_id FROM catalog.product_prices
  WHERE product_id = k.id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (                         -- product_stocks_live
  SELECT qty, import_id FROM catalog.product_stocks
  WHERE product_id = k.id AND archived_at IS NULL LIMIT 1) ps ON true
-- It is ours where we began it, or where there is none because we ended the last one.
CROSS JOIN LATERAL (
  SELECT pp.price IS NOT DISTINCT FROM c.price
           AND (c.price IS NULL OR pp.currency IS NOT DISTINCT FROM c.currency) AS is_same,
         coalesce(pp.import_id = $1, false) OR pp.price IS NULL AND EXISTS (
           SELECT FROM catalog.product_prices x
           WHERE x.product_id = k.id AND x.archived_at = c.at) AS is_ours) price
CROSS JOIN LATERAL (
  SELECT ps.qty IS NOT DISTINCT FROM c.qty AS is_same,
         coalesce(ps.import_id = $1, false) OR ps.qty IS NULL AND EXISTS (
           SELECT FROM catalog.product_stocks x
           WHERE x.product_id = k.id AND x.archived_at = c.at) AS is_ours) stock
ORDER BY k.id
