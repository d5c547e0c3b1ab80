-- The row hashes of the live products of the tenant $3 from id $1 to id $2, which are $4 at most: a
-- walk along products_pkey, and through the table as it lies.
SELECT coalesce(array_agg(row_hash), '{}')
FROM (SELECT tenant, row_hash, archived_at FROM catalog.products
      WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $4) p
WHERE tenant = $3 AND archived_at IS NULL AND row_hash IS NOT NULL
