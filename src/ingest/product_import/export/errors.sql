-- The next rejected rows of the import $1 after the row $3 of the sheet $2, each with the columns,
-- codes and messages of its errors: $4 rows, or fewer where those have more than $5 bytes. A row at a
-- time, so that no row is read that the page has no room for.
WITH RECURSIVE page AS (
  SELECT $2::text AS sheet, $3::integer AS row_no, NULL::jsonb AS cells, NULL::text AS columns,
         NULL::text AS codes, NULL::text AS messages, 0::bigint AS n_rows, 0::bigint AS n_bytes
  UNION ALL
  SELECT r.sheet, r.row_no, r.cells, e.columns, e.codes, e.messages, page.n_rows + 1,
         page.n_bytes + octet_length(r.cells::text)
           + coalesce(octet_length(e.columns) + octet_length(e.codes) + octet_length(e.messages), 0)
  FROM page
  CROSS JOIN LATERAL (
    SELECT sheet, row_no, cells FROM catalog.rejected_rows
    WHERE import_id = $1 AND (sheet, row_no) > (page.sheet, page.row_no)
    ORDER BY sheet, row_no LIMIT 1) r
  CROSS JOIN LATERAL (
    SELECT string_agg(coalesce(column_name, ''), '; ' ORDER BY id) AS columns,
           string_agg(code, '; ' ORDER BY id) AS codes, string_agg(message, '; ' ORDER BY id) AS messages
    FROM catalog.import_errors
    WHERE import_id = $1 AND row_no = r.row_no AND coalesce(sheet, '') = r.sheet) e
  WHERE page.n_rows < $4 AND page.n_bytes < $5)
SELECT sheet, row_no, cells, columns, codes, messages FROM page WHERE n_rows > 0 ORDER BY n_rows
