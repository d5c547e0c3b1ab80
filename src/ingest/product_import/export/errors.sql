-- The next $4 rejected rows of the import $1 after the row $3 of the sheet $2, each with the columns,
-- codes and messages of its errors.
SELECT r.sheet, r.row_no, r.cells, e.columns, e.codes, e.messages
FROM catalog.rejected_rows r
CROSS JOIN LATERAL (
  SELECT string_agg(coalesce(column_name, ''), '; ' ORDER BY id) AS columns,
         string_agg(code, '; ' ORDER BY id) AS codes, string_agg(message, '; ' ORDER BY id) AS messages
  FROM catalog.import_errors
  WHERE import_id = $1 AND row_no = r.row_no AND coalesce(sheet, '') = r.sheet) e
WHERE r.import_id = $1 AND (r.sheet, r.row_no) > ($2, $3)
ORDER BY r.sheet, r.row_no LIMIT $4
