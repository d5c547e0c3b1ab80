-- All that imports left behind, a line each, without ids and times: what two databases must have alike.
WITH file AS (SELECT id, file_name FROM catalog.imports),
product AS (SELECT p.*, f.file_name FROM catalog.products p LEFT JOIN file f ON f.id = p.import_id)
SELECT concat_ws('|', 'product', code, name, brand, attributes, row_hash, archived_at IS NULL, file_name)
FROM product
UNION ALL
SELECT concat_ws('|', 'price', p.code, trim_scale(x.price), x.currency, x.archived_at IS NULL, f.file_name)
FROM catalog.product_prices x JOIN product p ON p.id = x.product_id LEFT JOIN file f ON f.id = x.import_id
UNION ALL
SELECT concat_ws('|', 'stock', p.code, x.qty, x.archived_at IS NULL, f.file_name)
FROM catalog.product_stocks x JOIN product p ON p.id = x.product_id LEFT JOIN file f ON f.id = x.import_id
UNION ALL
SELECT concat_ws('|', 'before', f.file_name, p.code, c.name, c.brand, c.attributes, c.row_hash, c.wrote_hash,
                 c.archived_at IS NULL, trim_scale(c.price), c.currency, c.qty, w.file_name)
FROM catalog.product_changes c JOIN product p ON p.id = c.product_id
JOIN file f ON f.id = c.import_id LEFT JOIN file w ON w.id = c.was_import_id
UNION ALL
SELECT concat_ws('|', 'error', f.file_name, e.sheet, e.row_no, e.column_name, e.code, e.message, e.value)
FROM catalog.import_errors e JOIN file f ON f.id = e.import_id
UNION ALL
SELECT concat_ws('|', 'rejected', f.file_name, r.sheet, r.row_no, r.cells)
FROM catalog.rejected_rows r JOIN file f ON f.id = r.import_id
UNION ALL
SELECT concat_ws('|', 'kept', k.code, k.reason) FROM catalog.kept_products k
UNION ALL
SELECT concat_ws('|', 'import', i.file_name, i.created_count, i.updated_count, i.unchanged_count,
                 i.archived_count, i.error_count, i.rollback_run_id IS NULL)
FROM catalog.imports i
UNION ALL
SELECT concat_ws('|', 'run', id, system, state, items_ok, items_failed, items_skipped, items_total)
FROM ingestd.runs
ORDER BY 1
