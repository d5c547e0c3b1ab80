-- The catalog: products, their prices and stocks with history, and the log of imports that wrote them.

CREATE SCHEMA catalog;
COMMENT ON SCHEMA catalog IS 'Products, prices and stocks with their history, and the imports that wrote them.';

-- ── products ────────────────────────────────────────────────────────────────

CREATE TABLE catalog.products (
  id                bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY,
  tenant            text COLLATE "C" NOT NULL DEFAULT 'default',
  code              text COLLATE "C" NOT NULL
                    CONSTRAINT code_is_1_to_1024_bytes CHECK (octet_length(code) BETWEEN 1 AND 1024),
  name              text NOT NULL CONSTRAINT name_is_not_empty CHECK (name <> ''),
  description       text,
  brand             text,
  category          text,
  ean               text,
  url               text,
  weight            numeric
                    CONSTRAINT weight_fits CHECK (weight >= 0 AND weight < 1e15 AND scale(weight) <= 12),
  source_updated_at timestamp,
  attributes        jsonb
                    CONSTRAINT attributes_is_an_object CHECK (jsonb_typeof(attributes) = 'object'),
  row_hash          bigint,
  import_id         bigint,
  created_at        timestamptz NOT NULL DEFAULT now(),
  updated_at        timestamptz NOT NULL DEFAULT now(),
  archived_at       timestamptz,
  CONSTRAINT products_code UNIQUE (code, tenant)
) WITH (
  fillfactor = 90,
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02
);
COMMENT ON TABLE  catalog.products IS 'One row per product of a tenant, found by its code. Pages are left a tenth free, so that a changed row finds room beside itself and its indexes stay as they are; they are vacuumed early, because an import that meets what the last one left behind cleans up page by page.';
COMMENT ON COLUMN catalog.products.id IS 'Identifies the product, also in prices and stocks.';
COMMENT ON COLUMN catalog.products.tenant IS 'Owner of the data.';
COMMENT ON COLUMN catalog.products.code IS 'The owner''s own key, text as written: 00123 is not 123. At most 1024 bytes.';
COMMENT ON COLUMN catalog.products.name IS 'Name for people.';
COMMENT ON COLUMN catalog.products.description IS 'Free text.';
COMMENT ON COLUMN catalog.products.brand IS 'The maker''s name.';
COMMENT ON COLUMN catalog.products.category IS 'Category as the source names it.';
COMMENT ON COLUMN catalog.products.ean IS 'Bar code, digits as text.';
COMMENT ON COLUMN catalog.products.url IS 'The product''s page.';
COMMENT ON COLUMN catalog.products.weight IS 'Weight in the source''s own unit; under 10^15 and at most 12 decimals, so that a 96-bit decimal holds it.';
COMMENT ON COLUMN catalog.products.source_updated_at IS 'When the source last changed it, by the source''s wall clock.';
COMMENT ON COLUMN catalog.products.attributes IS 'The extra columns of the file by header, a JSON object.';
COMMENT ON COLUMN catalog.products.row_hash IS '64-bit hash of the imported row and of the columns it had; an import skips the row while it is equal. Whoever writes the product otherwise sets it to null.';
COMMENT ON COLUMN catalog.products.import_id IS 'The import that last wrote it, catalog.imports.id.';
COMMENT ON COLUMN catalog.products.created_at IS 'When it first appeared.';
COMMENT ON COLUMN catalog.products.updated_at IS 'When it was last written.';
COMMENT ON COLUMN catalog.products.archived_at IS 'When it was taken out of the catalog; null: live. Appearing in a file again makes it live.';
COMMENT ON CONSTRAINT products_code ON catalog.products IS 'Found by code. The code leads: comparing the tenant with itself at every step cost an import a tenth of its time. Collation C compares bytes.';

-- ── prices and stocks: one live row each, the rest is history ───────────────

CREATE TABLE catalog.product_prices (
  product_id  bigint NOT NULL,
  price       numeric NOT NULL
              CONSTRAINT price_fits CHECK (price >= 0 AND price < 1e15 AND scale(price) <= 12),
  currency    text,
  import_id   bigint,
  valid_from  timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
COMMENT ON TABLE  catalog.product_prices IS 'Prices, live and past. No foreign key to products: it doubled the time of an import (700,000 rows: 13 s instead of 6.2), and the only writer draws the ids itself. No primary key: an id and its index cost a sixth of that time; a row is told by product_id and valid_from.';
COMMENT ON COLUMN catalog.product_prices.product_id IS 'The product, catalog.products.id.';
COMMENT ON COLUMN catalog.product_prices.price IS 'Price in units of currency; under 10^15 and at most 12 decimals, so that a 96-bit decimal holds it.';
COMMENT ON COLUMN catalog.product_prices.currency IS 'Currency as the source names it, usually an ISO 4217 code; null: not said.';
COMMENT ON COLUMN catalog.product_prices.import_id IS 'The import that wrote it, catalog.imports.id.';
COMMENT ON COLUMN catalog.product_prices.valid_from IS 'When it became the live one.';
COMMENT ON COLUMN catalog.product_prices.archived_at IS 'When another took its place, or the source gave none any more; null: live.';
CREATE UNIQUE INDEX product_prices_live ON catalog.product_prices (product_id) WHERE archived_at IS NULL;
CREATE INDEX product_prices_past ON catalog.product_prices (product_id, valid_from) WHERE archived_at IS NOT NULL;
COMMENT ON INDEX catalog.product_prices_live IS 'At most one live price a product.';
COMMENT ON INDEX catalog.product_prices_past IS 'The history of a product.';

CREATE TABLE catalog.product_stocks (
  product_id  bigint NOT NULL,
  qty         bigint NOT NULL CONSTRAINT qty_is_not_negative CHECK (qty >= 0),
  import_id   bigint,
  valid_from  timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
COMMENT ON TABLE  catalog.product_stocks IS 'Stocks, live and past. No keys, as in product_prices.';
COMMENT ON COLUMN catalog.product_stocks.product_id IS 'The product, catalog.products.id.';
COMMENT ON COLUMN catalog.product_stocks.qty IS 'Pieces.';
COMMENT ON COLUMN catalog.product_stocks.import_id IS 'The import that wrote it, catalog.imports.id.';
COMMENT ON COLUMN catalog.product_stocks.valid_from IS 'When it became the live one.';
COMMENT ON COLUMN catalog.product_stocks.archived_at IS 'When another took its place, or the source gave none any more; null: live.';
CREATE UNIQUE INDEX product_stocks_live ON catalog.product_stocks (product_id) WHERE archived_at IS NULL;
CREATE INDEX product_stocks_past ON catalog.product_stocks (product_id, valid_from) WHERE archived_at IS NOT NULL;
COMMENT ON INDEX catalog.product_stocks_live IS 'At most one live stock a product.';
COMMENT ON INDEX catalog.product_stocks_past IS 'The history of a product.';

-- ── the log of imports ──────────────────────────────────────────────────────

CREATE TABLE catalog.imports (
  id              bigint PRIMARY KEY REFERENCES ingestd.runs,
  tenant          text NOT NULL DEFAULT 'default',
  type            text NOT NULL CHECK (type IN ('PARTS', 'DEALERS')),
  file_name       text NOT NULL,
  file_size_bytes bigint NOT NULL CHECK (file_size_bytes >= 0),
  file_sha256     bytea NOT NULL CHECK (octet_length(file_sha256) = 32),
  success_count   bigint GENERATED ALWAYS AS (created_count + updated_count + unchanged_count) STORED,
  error_count     bigint NOT NULL DEFAULT 0 CHECK (error_count >= 0),
  created_count   bigint NOT NULL DEFAULT 0 CHECK (created_count >= 0),
  updated_count   bigint NOT NULL DEFAULT 0 CHECK (updated_count >= 0),
  unchanged_count bigint NOT NULL DEFAULT 0 CHECK (unchanged_count >= 0),
  created_at      timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE  catalog.imports IS 'One row per imported file: what it was and what came of its rows. How far it is, its run says.';
COMMENT ON COLUMN catalog.imports.id IS 'The id of its run, ingestd.runs.id.';
COMMENT ON COLUMN catalog.imports.tenant IS 'Owner of the data.';
COMMENT ON COLUMN catalog.imports.type IS 'PARTS: products. DEALERS: dealers.';
COMMENT ON COLUMN catalog.imports.file_name IS 'Name of the file as uploaded.';
COMMENT ON COLUMN catalog.imports.file_size_bytes IS 'Size of the file in bytes.';
COMMENT ON COLUMN catalog.imports.file_sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN catalog.imports.success_count IS 'Rows that are in the catalog as the file has them.';
COMMENT ON COLUMN catalog.imports.error_count IS 'Rows (not errors) that were refused.';
COMMENT ON COLUMN catalog.imports.created_count IS 'Rows that made a new product.';
COMMENT ON COLUMN catalog.imports.updated_count IS 'Rows that changed a product or made an archived one live again.';
COMMENT ON COLUMN catalog.imports.unchanged_count IS 'Rows that the catalog had already.';
COMMENT ON COLUMN catalog.imports.created_at IS 'When it was uploaded.';
CREATE INDEX imports_newest ON catalog.imports (type, created_at DESC);
CREATE INDEX imports_file ON catalog.imports (tenant, file_sha256);
COMMENT ON INDEX catalog.imports_newest IS 'The newest imports of a type.';
COMMENT ON INDEX catalog.imports_file IS 'The same file uploaded again.';

CREATE TABLE catalog.import_errors (
  id          bigint GENERATED ALWAYS AS IDENTITY,
  import_id   bigint NOT NULL,
  sheet       text,
  row_no      integer NOT NULL CHECK (row_no > 0),
  column_name text,
  code        text NOT NULL,
  message     text NOT NULL,
  value       text,
  PRIMARY KEY (import_id, row_no, id)
);
COMMENT ON TABLE  catalog.import_errors IS 'What was wrong with which row; every error of a row. No foreign key: a file of bad rows writes as many of these as of products.';
COMMENT ON COLUMN catalog.import_errors.id IS 'Order of the errors within a row.';
COMMENT ON COLUMN catalog.import_errors.import_id IS 'The import, catalog.imports.id.';
COMMENT ON COLUMN catalog.import_errors.sheet IS 'Name of the sheet; null where the file has none, as in CSV.';
COMMENT ON COLUMN catalog.import_errors.row_no IS 'Row number as the user sees it, from 1.';
COMMENT ON COLUMN catalog.import_errors.column_name IS 'Header as in the file; null: the row as a whole.';
COMMENT ON COLUMN catalog.import_errors.code IS 'What is wrong, in one stable word for programs.';
COMMENT ON COLUMN catalog.import_errors.message IS 'What is wrong, in a sentence for people.';
COMMENT ON COLUMN catalog.import_errors.value IS 'The cell as the file has it, cut; null where it is empty.';

-- ── the same under the names people query ───────────────────────────────────

CREATE VIEW catalog."ImportLog" AS
  SELECT i.id, i.tenant, i.type, i.file_name AS "fileName", i.file_size_bytes AS "fileSize",
         CASE WHEN r.state = 'pending' THEN 'PENDING'
              WHEN r.state IN ('running', 'paused') THEN 'PROCESSING'
              WHEN r.state = 'completed' THEN 'COMPLETED'
              ELSE 'FAILED' END AS "importStatus",
         r.items_total AS "totalRows", i.success_count AS "successCount",
         i.error_count AS "errorCount", i.created_count AS "createdCount",
         i.updated_count AS "updatedCount", i.unchanged_count AS "unchangedCount",
         CASE WHEN r.state = 'cancelled' THEN 'cancelled' ELSE r.error END AS "errorMessage",
         i.created_at AS "createdAt", r.started_at AS "startedAt", r.finished_at AS "completedAt"
  FROM catalog.imports i JOIN ingestd.runs r ON r.id = i.id;
COMMENT ON VIEW catalog."ImportLog" IS 'Imports and how far they are, under the names and in the words of the product import''s document; a cancelled one is FAILED.';

CREATE VIEW catalog."ImportErrorsLog" AS
  SELECT id, import_id AS "importLogId", sheet, row_no AS "rowNumber",
         column_name AS "columnName", code, message, value
  FROM catalog.import_errors;
COMMENT ON VIEW catalog."ImportErrorsLog" IS 'catalog.import_errors under the names of the product import''s document.';

-- In public as well, so that the document's queries run as written with the default search_path;
-- but never over a table of that name that is there already, and never at the price of the migration.
DO $$
DECLARE name text;
BEGIN
  IF to_regnamespace('public') IS NULL OR NOT has_schema_privilege('public', 'CREATE') THEN
    RAISE NOTICE 'no right to create views in schema public: query catalog."ImportLog" instead';
    RETURN;
  END IF;
  FOREACH name IN ARRAY ARRAY['ImportLog', 'ImportErrorsLog'] LOOP
    IF to_regclass(format('public.%I', name)) IS NULL THEN
      EXECUTE format('CREATE VIEW public.%I AS SELECT * FROM catalog.%I', name, name);
      EXECUTE format('COMMENT ON VIEW public.%I IS %L', name, 'catalog.' || quote_ident(name) || ', for the default search_path.');
    ELSE
      RAISE NOTICE 'public.% is there already: query catalog."%" instead', quote_ident(name), name;
    END IF;
  END LOOP;
END$$;
