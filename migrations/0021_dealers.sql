-- Dealers: imported at once, while the caller waits.

CREATE TABLE catalog.dealers (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant     text COLLATE "C" NOT NULL DEFAULT 'default',
  code       text COLLATE "C" NOT NULL
             CONSTRAINT dealer_code_is_1_to_1024_bytes CHECK (octet_length(code) BETWEEN 1 AND 1024),
  name       text NOT NULL CONSTRAINT dealer_name_is_not_empty CHECK (name <> ''),
  email      text,
  phone      text,
  address    text,
  city       text,
  country    text,
  attributes jsonb
             CONSTRAINT dealer_attributes_is_an_object CHECK (jsonb_typeof(attributes) = 'object'),
  import_id  bigint,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT dealers_code UNIQUE (code, tenant)
);
COMMENT ON TABLE  catalog.dealers IS 'One row per dealer of a tenant, found by its code.';
COMMENT ON COLUMN catalog.dealers.id IS 'Identifies the dealer.';
COMMENT ON COLUMN catalog.dealers.tenant IS 'Owner of the data.';
COMMENT ON COLUMN catalog.dealers.code IS 'The owner''s own key, text as written.';
COMMENT ON COLUMN catalog.dealers.name IS 'Name for people.';
COMMENT ON COLUMN catalog.dealers.email IS 'Mail address as the source has it.';
COMMENT ON COLUMN catalog.dealers.phone IS 'Telephone number as the source has it.';
COMMENT ON COLUMN catalog.dealers.address IS 'Street and number as the source has them.';
COMMENT ON COLUMN catalog.dealers.city IS 'City.';
COMMENT ON COLUMN catalog.dealers.country IS 'Country as the source names it.';
COMMENT ON COLUMN catalog.dealers.attributes IS 'The extra columns of the file by header, a JSON object.';
COMMENT ON COLUMN catalog.dealers.import_id IS 'The import that last wrote it, catalog.imports.id.';
COMMENT ON COLUMN catalog.dealers.created_at IS 'When it first appeared.';
COMMENT ON COLUMN catalog.dealers.updated_at IS 'When it was last written.';
COMMENT ON CONSTRAINT dealers_code ON catalog.dealers IS 'Found by code.';
