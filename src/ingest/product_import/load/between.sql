-- What lies between the codes $1 and $2, of anybody: how many, at most $4; how many are the tenant's
-- $3, and the row hashes of those that are live. One walk along the index (products_code) instead of
-- a descent per code. It is bounded by $4 whoever's they are; where it ends there, it says nothing.
SELECT count(*), count(*) FILTER (WHERE tenant = $3),
       coalesce(array_agg(row_hash) FILTER (
         WHERE tenant = $3 AND archived_at IS NULL AND row_hash IS NOT NULL), '{}')
FROM (SELECT tenant, row_hash, archived_at FROM catalog.products
      WHERE code >= $1 AND code <= $2 ORDER BY code, tenant LIMIT $4) p
