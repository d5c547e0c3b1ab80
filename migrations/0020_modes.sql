-- Modes of an import, what it takes to undo one, and rejected rows as their file had them.

-- ── what an import was asked for ────────────────────────────────────────────

ALTER TABLE catalog.imports
  ADD COLUMN mode             text NOT NULL DEFAULT 'upsert'
    CONSTRAINT mode_is_known CHECK (mode IN ('upsert', 'insert_only', 'update_only', 'replace_all')),
  ADD COLUMN dry_run          boolean NOT NULL DEFAULT false,
  ADD COLUMN archived_count   bigint NOT NULL DEFAULT 0 CHECK (archived_count >= 0),
  ADD COLUMN reading_hash     bigint,
  ADD COLUMN first_created_id bigint,
  ADD COLUMN last_created_id  bigint,
  ADD COLUMN rollback_run_id  bigint REFERENCES ingestd.runs ON DELETE SET NULL;
COMMENT ON COLUMN catalog.imports.mode IS 'upsert: new and changed rows are written. insert_only: new ones. update_only: changed ones. replace_all: both, and what the file lacks is archived.';
COMMENT ON COLUMN catalog.imports.dry_run IS 'Nothing was written to the catalog; the counts say what would have been.';
COMMENT ON COLUMN catalog.imports.archived_count IS 'Products archived because the file lacked them.';
COMMENT ON COLUMN catalog.imports.reading_hash IS 'Changes with how the file was read and what was done with its rows: the same file with the same hash says the same again.';
COMMENT ON COLUMN catalog.imports.first_created_id IS 'The smallest id of the products that it created; null: none.';
COMMENT ON COLUMN catalog.imports.last_created_id IS 'The greatest id of the products that it created; between the two there may be others''.';
COMMENT ON COLUMN catalog.imports.rollback_run_id IS 'The run that undoes, or has undone, it; null: nobody asked for that.';

-- ── what changed rows were before ───────────────────────────────────────────

CREATE TABLE catalog.product_changes (
  import_id         bigint NOT NULL,
  product_id        bigint NOT NULL,
  at                timestamptz NOT NULL DEFAULT now(),
  was_import_id     bigint,
  name              text NOT NULL,
  description       text,
  brand             text,
  category          text,
  ean               text,
  url               text,
  weight            numeric,
  source_updated_at timestamp,
  attributes        jsonb,
  row_hash          bigint,
  wrote_hash        bigint,
  archived_at       timestamptz,
  price             numeric,
  currency          text,
  price_import_id   bigint,
  qty               bigint,
  qty_import_id     bigint,
  PRIMARY KEY (import_id, product_id)
);
COMMENT ON TABLE  catalog.product_changes IS 'What an import found where it changed or archived a product, so that it can be undone; created products have no row here. Undoing takes the row away.';
COMMENT ON COLUMN catalog.product_changes.import_id IS 'The import that changed it, catalog.imports.id.';
COMMENT ON COLUMN catalog.product_changes.product_id IS 'The product, catalog.products.id.';
COMMENT ON COLUMN catalog.product_changes.at IS 'When; a price or stock that it ended has the same time.';
COMMENT ON COLUMN catalog.product_changes.was_import_id IS 'The import that had written it last.';
COMMENT ON COLUMN catalog.product_changes.name IS 'The name before.';
COMMENT ON COLUMN catalog.product_changes.description IS 'The description before.';
COMMENT ON COLUMN catalog.product_changes.brand IS 'The brand before.';
COMMENT ON COLUMN catalog.product_changes.category IS 'The category before.';
COMMENT ON COLUMN catalog.product_changes.ean IS 'The bar code before.';
COMMENT ON COLUMN catalog.product_changes.url IS 'The page before.';
COMMENT ON COLUMN catalog.product_changes.weight IS 'The weight before, in the source''s own unit.';
COMMENT ON COLUMN catalog.product_changes.source_updated_at IS 'The source''s time of change before.';
COMMENT ON COLUMN catalog.product_changes.attributes IS 'The extra columns before, a JSON object.';
COMMENT ON COLUMN catalog.product_changes.row_hash IS 'The row hash before.';
COMMENT ON COLUMN catalog.product_changes.wrote_hash IS 'The row hash that the import left; another one now: somebody edited it since.';
COMMENT ON COLUMN catalog.product_changes.archived_at IS 'When it had been archived; null: it was live.';
COMMENT ON COLUMN catalog.product_changes.price IS 'The live price before; null: none.';
COMMENT ON COLUMN catalog.product_changes.currency IS 'Its currency.';
COMMENT ON COLUMN catalog.product_changes.price_import_id IS 'The import that had written that price.';
COMMENT ON COLUMN catalog.product_changes.qty IS 'The live stock before, in pieces; null: none.';
COMMENT ON COLUMN catalog.product_changes.qty_import_id IS 'The import that had written that stock.';
CREATE INDEX product_changes_before ON catalog.product_changes (was_import_id, product_id);
COMMENT ON INDEX catalog.product_changes_before IS 'The products of an import that later ones wrote again.';

-- Whoever edits a product beside the imports need not know of row_hash: the next import takes the
-- edit for a change, and undoing leaves it alone. After the update and with a condition, so that
-- an import's own updates, which change the hash or the import, pay a comparison and no lock.
CREATE FUNCTION catalog.note_edit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE catalog.products SET row_hash = NULL, updated_at = clock_timestamp() WHERE id = NEW.id;
  RETURN NULL;
END$$;
COMMENT ON FUNCTION catalog.note_edit() IS 'Marks a product that somebody edited: no row hash, written now.';
CREATE TRIGGER note_edit AFTER UPDATE ON catalog.products FOR EACH ROW
  WHEN (NEW.row_hash IS NOT DISTINCT FROM OLD.row_hash
        AND (OLD.row_hash IS NOT NULL OR NEW.updated_at = OLD.updated_at)
        AND NEW.import_id IS NOT DISTINCT FROM OLD.import_id
        AND NEW.archived_at IS NOT DISTINCT FROM OLD.archived_at)
  EXECUTE FUNCTION catalog.note_edit();
COMMENT ON TRIGGER note_edit ON catalog.products IS 'Edits that are no import''s.';

CREATE TABLE catalog.kept_products (
  run_id     bigint NOT NULL REFERENCES ingestd.runs ON DELETE CASCADE,
  product_id bigint NOT NULL,
  code       text COLLATE "C",
  reason     text NOT NULL CHECK (reason IN ('edited', 'imported_again', 'deleted')),
  PRIMARY KEY (run_id, product_id)
);
COMMENT ON TABLE  catalog.kept_products IS 'Products that undoing an import left as they are, because something newer touched them.';
COMMENT ON COLUMN catalog.kept_products.run_id IS 'The run that undid the import.';
COMMENT ON COLUMN catalog.kept_products.product_id IS 'The product, catalog.products.id.';
COMMENT ON COLUMN catalog.kept_products.code IS 'Its code; null where it was deleted.';
COMMENT ON COLUMN catalog.kept_products.reason IS 'edited: somebody changed it, its price or its stock. imported_again: a later import wrote it. deleted: it is gone.';

-- ── rejected rows as the file had them ──────────────────────────────────────

CREATE TABLE catalog.rejected_rows (
  import_id bigint NOT NULL,
  sheet     text NOT NULL DEFAULT '',
  row_no    integer NOT NULL CHECK (row_no > 0),
  cells     jsonb NOT NULL CONSTRAINT cells_is_an_array CHECK (jsonb_typeof(cells) = 'array'),
  PRIMARY KEY (import_id, sheet, row_no)
);
COMMENT ON TABLE  catalog.rejected_rows IS 'The cells of every row that was not imported, to be downloaded, mended and imported again. No foreign key, as in import_errors.';
COMMENT ON COLUMN catalog.rejected_rows.import_id IS 'The import, catalog.imports.id.';
COMMENT ON COLUMN catalog.rejected_rows.sheet IS 'Name of the sheet; empty where the file has none, as in CSV.';
COMMENT ON COLUMN catalog.rejected_rows.row_no IS 'Row number as the user sees it, from 1.';
COMMENT ON COLUMN catalog.rejected_rows.cells IS 'The texts of the columns that were read, in the order of the file; null: empty.';

-- ── the log under the names people query ────────────────────────────────────

CREATE OR REPLACE VIEW catalog."ImportLog" AS
  SELECT i.id, i.tenant, i.type, i.file_name AS "fileName", i.file_size_bytes AS "fileSize",
         CASE WHEN r.state = 'pending' THEN 'PENDING'
              WHEN r.state IN ('running', 'paused') THEN 'PROCESSING'
              WHEN r.state = 'completed' THEN 'COMPLETED'
              ELSE 'FAILED' END AS "importStatus",
         r.items_total AS "totalRows", i.success_count AS "successCount",
         i.error_count AS "errorCount", i.created_count AS "createdCount",
         i.updated_count AS "updatedCount", i.unchanged_count AS "unchangedCount",
         CASE WHEN r.state = 'cancelled' THEN 'cancelled' ELSE r.error END AS "errorMessage",
         i.created_at AS "createdAt", r.started_at AS "startedAt", r.finished_at AS "completedAt",
         i.mode, i.dry_run AS "dryRun", i.archived_count AS "archivedCount",
         i.rollback_run_id AS "rollbackRunId"
  FROM catalog.imports i JOIN ingestd.runs r ON r.id = i.id;
