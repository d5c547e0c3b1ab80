-- Search: products that changed are told to a search server (Typesense). An import notes them in its
-- own transaction; a job sends what is noted and removes a note once the server has taken it.
--
-- A note says only that a product changed; what is sent is the product as it is when it is sent, or
-- its removal where it is archived or gone by then. Notes are therefore never stale, need no order
-- among transactions, and two notes of one product cost one document. No unique key on the product:
-- an import would wait for another's transaction, and a note made while its product is being sent
-- must stay. A note is of up to 1000 products, stored as they come: a chunk's 10,000 took 22 ms
-- as rows of one each, 12 ms as ten arrays that were compressed, 0.6 ms as they are.

CREATE TABLE catalog.search_outbox (
  seq        bigint GENERATED ALWAYS AS IDENTITY (CACHE 100) PRIMARY KEY,
  product_ids bigint[] NOT NULL
              CONSTRAINT a_note_is_of_1_to_1000_products CHECK (cardinality(product_ids) BETWEEN 1 AND 1000),
  n_products smallint GENERATED ALWAYS AS (cardinality(product_ids)) STORED,
  noted_at   timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE catalog.search_outbox ALTER product_ids SET STORAGE EXTERNAL;
COMMENT ON TABLE  catalog.search_outbox IS 'Products that changed since the search server was told. No foreign key: a product may be gone, which is then what is told.';
COMMENT ON COLUMN catalog.search_outbox.seq IS 'Tells this note from later ones of the same product: only the notes that were read are removed.';
COMMENT ON COLUMN catalog.search_outbox.product_ids IS 'The products, catalog.products.id; also the documents'' ids. Those that are dealt with are taken out.';
COMMENT ON COLUMN catalog.search_outbox.n_products IS 'How many they are.';
COMMENT ON COLUMN catalog.search_outbox.noted_at IS 'When the change''s transaction began.';

CREATE SEQUENCE catalog.search_version CACHE 1;
COMMENT ON SEQUENCE catalog.search_version IS 'Numbers what is sent: a document''s field version is greater the later it was read from the catalog.';

CREATE TABLE catalog.search_failures (
  collection text NOT NULL,
  product_id bigint NOT NULL,
  attempts   smallint NOT NULL DEFAULT 1 CHECK (attempts > 0),
  error      text NOT NULL,
  failed_at  timestamptz NOT NULL DEFAULT now(),
  retry_at   timestamptz,
  PRIMARY KEY (collection, product_id)
);
COMMENT ON TABLE  catalog.search_failures IS 'Products that the search server refused, with its reason. They are tried again a few times, then kept until the product changes, somebody asks for a retry, or a rebuild.';
COMMENT ON COLUMN catalog.search_failures.collection IS 'The alias under which is searched, catalog.search_indexes.alias.';
COMMENT ON COLUMN catalog.search_failures.product_id IS 'The product, catalog.products.id.';
COMMENT ON COLUMN catalog.search_failures.attempts IS 'How often it was refused in a row.';
COMMENT ON COLUMN catalog.search_failures.error IS 'What the server said, cut.';
COMMENT ON COLUMN catalog.search_failures.failed_at IS 'When it was last refused.';
COMMENT ON COLUMN catalog.search_failures.retry_at IS 'When it is tried again; null: kept.';
CREATE INDEX search_failures_due ON catalog.search_failures (collection, retry_at) WHERE retry_at IS NOT NULL;
COMMENT ON INDEX catalog.search_failures_due IS 'What is to be tried again, the first due first.';

CREATE TABLE catalog.search_indexes (
  alias           text PRIMARY KEY,
  live            text,
  building        text,
  build_fields    text[],
  build_after     bigint NOT NULL DEFAULT 0,
  build_rows      bigint NOT NULL DEFAULT 0,
  build_began_at  timestamptz,
  retired         text[] NOT NULL DEFAULT '{}',
  live_fields     text[],
  switched_at     timestamptz,
  synced_at       timestamptz,
  upserted        bigint NOT NULL DEFAULT 0 CHECK (upserted >= 0),
  deleted         bigint NOT NULL DEFAULT 0 CHECK (deleted >= 0),
  wait_until      timestamptz,
  trouble         text,
  trouble_at      timestamptz,
  CONSTRAINT build_has_a_beginning CHECK ((building IS NULL) = (build_began_at IS NULL))
);
COMMENT ON TABLE  catalog.search_indexes IS 'One row an alias of the search server: which collection is behind it, and how far its rebuild is.';
COMMENT ON COLUMN catalog.search_indexes.alias IS 'The name under which is searched, search.collection of the configuration.';
COMMENT ON COLUMN catalog.search_indexes.live IS 'The collection that the alias leads to; null: none was built yet.';
COMMENT ON COLUMN catalog.search_indexes.building IS 'The collection that a rebuild fills; changes go to both. Null: no rebuild.';
COMMENT ON COLUMN catalog.search_indexes.build_fields IS 'The fields that the collection being built was made with.';
COMMENT ON COLUMN catalog.search_indexes.build_after IS 'Products up to this id are in the collection being built.';
COMMENT ON COLUMN catalog.search_indexes.build_rows IS 'How many documents the rebuild sent so far.';
COMMENT ON COLUMN catalog.search_indexes.build_began_at IS 'When the rebuild began.';
COMMENT ON COLUMN catalog.search_indexes.retired IS 'Collections of our own that are not used any more and still to be dropped.';
COMMENT ON COLUMN catalog.search_indexes.live_fields IS 'The fields that the live collection was made with.';
COMMENT ON COLUMN catalog.search_indexes.switched_at IS 'When the alias was last led to another collection.';
COMMENT ON COLUMN catalog.search_indexes.synced_at IS 'When everything noted had last been taken.';
COMMENT ON COLUMN catalog.search_indexes.upserted IS 'Documents that the server took, ever.';
COMMENT ON COLUMN catalog.search_indexes.deleted IS 'Documents whose removal the server took, ever.';
COMMENT ON COLUMN catalog.search_indexes.wait_until IS 'The server asked not to be spoken to before.';
COMMENT ON COLUMN catalog.search_indexes.trouble IS 'What went wrong last; null: the last exchange went well.';
COMMENT ON COLUMN catalog.search_indexes.trouble_at IS 'When it did.';
COMMENT ON CONSTRAINT build_has_a_beginning ON catalog.search_indexes IS 'A rebuild says since when.';
