-- Dealers of the tenant $2 by the import $1: $3 to $10 are arrays in the same order, $11 says which
-- of the columns from email on the file has (true, in their order). What the file does not have
-- stays. Returns one row per dealer that was written: whether it is new.
INSERT INTO catalog.dealers AS d
  (tenant, code, name, email, phone, address, city, country, attributes, import_id)
SELECT $2, s.code, s.name, s.email, s.phone, s.address, s.city, s.country, s.attributes::jsonb, $1
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[]) s (code, name, email, phone, address, city, country, attributes)
ON CONFLICT (code, tenant) DO UPDATE SET
  name       = excluded.name,
  email      = CASE WHEN ($11::bool[])[1] THEN excluded.email      ELSE d.email      END,
  phone      = CASE WHEN ($11::bool[])[2] THEN excluded.phone      ELSE d.phone      END,
  address    = CASE WHEN ($11::bool[])[3] THEN excluded.address    ELSE d.address    END,
  city       = CASE WHEN ($11::bool[])[4] THEN excluded.city       ELSE d.city       END,
  country    = CASE WHEN ($11::bool[])[5] THEN excluded.country    ELSE d.country    END,
  attributes = CASE WHEN ($11::bool[])[6] THEN excluded.attributes ELSE d.attributes END,
  import_id  = excluded.import_id,
  updated_at = now()
WHERE d.name <> excluded.name
   OR ($11::bool[])[1] AND d.email      IS DISTINCT FROM excluded.email
   OR ($11::bool[])[2] AND d.phone      IS DISTINCT FROM excluded.phone
   OR ($11::bool[])[3] AND d.address    IS DISTINCT FROM excluded.address
   OR ($11::bool[])[4] AND d.city       IS DISTINCT FROM excluded.city
   OR ($11::bool[])[5] AND d.country    IS DISTINCT FROM excluded.country
   OR ($11::bool[])[6] AND d.attributes IS DISTINCT FROM excluded.attributes
-- A row that was inserted has no transaction that locked or replaced it.
RETURNING xmax = 0
