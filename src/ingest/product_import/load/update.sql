-- Changed products. $1 to $11 are arrays in the same order, $12 the columns that the
-- file has (bits of Columns), $13 the import. What the file does not have stays.
UPDATE catalog.products p SET
  name              = s.name,
  description       = CASE WHEN $12 & 1    = 0 THEN p.description       ELSE s.description END,
  brand             = CASE WHEN $12 & 2    = 0 THEN p.brand             ELSE s.brand END,
  category          = CASE WHEN $12 & 4    = 0 THEN p.category          ELSE s.category END,
  ean               = CASE WHEN $12 & 64   = 0 THEN p.ean               ELSE s.ean END,
  url               = CASE WHEN $12 & 128  = 0 THEN p.url               ELSE s.url END,
  weight            = CASE WHEN $12 & 256  = 0 THEN p.weight            ELSE s.weight END,
  source_updated_at = CASE WHEN $12 & 512  = 0 THEN p.source_updated_at ELSE s.source_updated_at END,
  attributes        = CASE WHEN $12 & 1024 = 0 THEN p.attributes        ELSE s.attributes::jsonb END,
  row_hash          = s.row_hash,
  import_id         = $13,
  updated_at        = now(),
  archived_at       = NULL
FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::numeric[], $9::timestamp[], $10::text[], $11::int8[])
  s (id, name, description, brand, category, ean, url, weight, source_updated_at, attributes, row_hash)
-- `p.id = s.id` has a second plan, a walk over the whole index with the arrays inside, which
-- wins where statistics say that products is tiny; this has only the look-up (products_pkey).
WHERE p.id = ANY (ARRAY[s.id])
