-- How many of the codes $1 (sorted) the tenant $2 has, and the row hashes of those that are live.
-- One index scan, one descent per code (products_code), and one row whatever it finds: a row per
-- product costs server and client more than the look-up.
SELECT count(*),
       coalesce(array_agg(row_hash) FILTER (WHERE archived_at IS NULL AND row_hash IS NOT NULL), '{}')
FROM catalog.products WHERE code = ANY ($1) AND tenant = $2
