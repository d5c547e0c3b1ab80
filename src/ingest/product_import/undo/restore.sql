-- Puts the products $2 back to what they were before the import $1.
UPDATE catalog.products p SET
  name = s.name, description = s.description, brand = s.brand, category = s.category, ean = s.ean,
  url = s.url, weight = s.weight, source_updated_at = s.source_updated_at,
  attributes = s.attributes, row_hash = s.row_hash, archived_at = s.archived_at,
  import_id = s.was_import_id, updated_at = now()
FROM (
  SELECT c.* FROM unnest($2::int8[]) k (id)
  CROSS JOIN LATERAL (                      -- product_changes_pkey
    SELECT * FROM catalog.product_changes WHERE import_id = $1 AND product_id = k.id LIMIT 1) c) s
-- As in update.sql: only the look-up by products_pkey.
WHERE p.id = ANY (ARRAY[s.product_id]) AND p.import_id = $1
