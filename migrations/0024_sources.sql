-- Sources of imports: a file on disk, at a URL or in an S3 bucket that is looked at by a schedule
-- and imported whenever it has changed, and folders whose new files are imported once each.
--
-- The schedule of a source is a row of ingestd.schedules named source:NAME; what was seen of the
-- source last is here, written in the transaction that submits the import.

CREATE TABLE catalog.sources (
  name            text PRIMARY KEY
                  CONSTRAINT name_is_plain CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  tenant          text NOT NULL DEFAULT 'default'
                  CONSTRAINT tenant_is_1_to_200_characters CHECK (length(tenant) BETWEEN 1 AND 200),
  kind            text NOT NULL
                  CONSTRAINT kind_is_known CHECK (kind IN ('path', 'url', 's3', 'folder')),
  location        text NOT NULL
                  CONSTRAINT location_is_1_to_4096_bytes CHECK (octet_length(location) BETWEEN 1 AND 4096),
  pattern         text CONSTRAINT pattern_is_1_to_200_bytes CHECK (octet_length(pattern) BETWEEN 1 AND 200),
  ready           text CONSTRAINT ready_is_known CHECK (ready IN ('stable', 'marker', 'at_once')),
  endpoint        text CONSTRAINT endpoint_is_at_most_1024_bytes CHECK (octet_length(endpoint) <= 1024),
  region          text CONSTRAINT region_is_plain CHECK (region ~ '^[a-z0-9-]{1,50}$'),
  secret_ref      text
                  CONSTRAINT secret_ref_is_a_plain_name
                  CHECK (secret_ref ~ '^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$'),
  options         jsonb NOT NULL DEFAULT '{}'
                  CONSTRAINT options_is_a_small_object
                  CHECK (jsonb_typeof(options) = 'object' AND octet_length(options::text) <= 16384),
  origin          text NOT NULL DEFAULT 'user'
                  CONSTRAINT origin_is_known CHECK (origin IN ('user', 'config')),
  config_set      text,
  shadows_set     text,
  seen_no         bigint NOT NULL DEFAULT 0,
  seen_etag       text,
  seen_modified   text,
  seen_stamp      text,
  seen_sha256     bytea CONSTRAINT seen_sha256_is_32_bytes CHECK (octet_length(seen_sha256) = 32),
  last_look_at    timestamptz,
  last_result     text
                  CONSTRAINT last_result_is_known
                  CHECK (last_result IN ('imported', 'unchanged', 'refused', 'failed', 'looked')),
  last_error      text,
  last_import_id  bigint,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT folders_have_a_pattern CHECK (
    (kind = 'folder') = (pattern IS NOT NULL) AND (kind = 'folder') = (ready IS NOT NULL)),
  CONSTRAINT buckets_have_a_region CHECK (
    (kind = 's3') = (region IS NOT NULL) AND (kind = 's3' OR endpoint IS NULL)),
  CONSTRAINT config_has_a_set CHECK ((origin = 'config') = (config_set IS NOT NULL))
);
COMMENT ON TABLE  catalog.sources IS 'Places that product files are imported from, by schedule or by hand.';
COMMENT ON COLUMN catalog.sources.name IS 'Identifies the source; its schedule is source:NAME in ingestd.schedules.';
COMMENT ON COLUMN catalog.sources.tenant IS 'Owner of what is imported.';
COMMENT ON COLUMN catalog.sources.kind IS 'What location is: path, a file; url, http or https; s3, an object; folder, a folder to be watched.';
COMMENT ON COLUMN catalog.sources.location IS 'An absolute path, a URL, or s3://BUCKET/KEY.';
COMMENT ON COLUMN catalog.sources.pattern IS 'Of a folder: which names are taken, with * and ?.';
COMMENT ON COLUMN catalog.sources.ready IS 'Of a folder: when a file is taken. stable: it did not change between two looks; marker: NAME.done is beside it; at_once: at the first look, for files that are renamed into place.';
COMMENT ON COLUMN catalog.sources.endpoint IS 'Of s3: scheme, host and port of the store; null: AWS.';
COMMENT ON COLUMN catalog.sources.region IS 'Of s3: the region that requests are signed for.';
COMMENT ON COLUMN catalog.sources.secret_ref IS 'Name of a file in sources.secrets_dir that says how to log in; never the secret. Null: nothing is sent.';
COMMENT ON COLUMN catalog.sources.options IS 'What its imports are asked for: the options of an upload, by name, each a text; at most 16 KiB.';
COMMENT ON COLUMN catalog.sources.origin IS 'Who owns the row: a user, or the configuration of a set of daemons. Only the owner changes or removes it; a user''s stands before the configuration''s.';
COMMENT ON COLUMN catalog.sources.config_set IS 'Of origin config: the queue.schedule_set of the daemons whose files it equals. Null otherwise.';
COMMENT ON COLUMN catalog.sources.shadows_set IS 'The set whose configuration has a source of this name, which is not in force because this row was here first.';
COMMENT ON COLUMN catalog.sources.seen_no IS 'Counts what was written about what was seen: a look that began before another ended finds it changed and writes nothing.';
COMMENT ON COLUMN catalog.sources.seen_etag IS 'Of url and s3: the ETag of the version seen last.';
COMMENT ON COLUMN catalog.sources.seen_modified IS 'Of url and s3: the Last-Modified of the version seen last.';
COMMENT ON COLUMN catalog.sources.seen_stamp IS 'Of path: size in bytes, times of the last change of content and of inode in nanoseconds, and inode of the version seen last.';
COMMENT ON COLUMN catalog.sources.seen_sha256 IS 'SHA-256 of the version seen last, 32 bytes.';
COMMENT ON COLUMN catalog.sources.last_look_at IS 'When it was looked at last.';
COMMENT ON COLUMN catalog.sources.last_result IS 'What came of it: imported, unchanged, refused (the file cannot be imported), failed (the file could not be taken), looked (of a folder).';
COMMENT ON COLUMN catalog.sources.last_error IS 'Of refused and failed: why.';
COMMENT ON COLUMN catalog.sources.last_import_id IS 'The last import of it, catalog.imports.id.';
COMMENT ON COLUMN catalog.sources.created_at IS 'When it was made.';
COMMENT ON COLUMN catalog.sources.updated_at IS 'When its definition last changed.';
COMMENT ON CONSTRAINT folders_have_a_pattern ON catalog.sources IS 'A folder has a pattern and a sign of readiness, nothing else has.';
COMMENT ON CONSTRAINT buckets_have_a_region ON catalog.sources IS 'Requests to a bucket are signed for a region.';
COMMENT ON CONSTRAINT config_has_a_set ON catalog.sources IS 'What the configuration owns says which one''s.';

CREATE TABLE catalog.source_files (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source      text NOT NULL REFERENCES catalog.sources ON DELETE CASCADE,
  name        text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
  stamp       text NOT NULL,
  size_bytes  bigint NOT NULL CHECK (size_bytes >= 0),
  state       text NOT NULL DEFAULT 'waiting'
              CONSTRAINT state_is_known CHECK (state IN ('waiting', 'submitted', 'refused', 'settled')),
  import_id   bigint,
  error       text,
  moved_to    text,
  seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  settled_at  timestamptz,
  CONSTRAINT submitted_has_an_import CHECK (state <> 'submitted' OR import_id IS NOT NULL),
  CONSTRAINT refused_has_an_error CHECK (state <> 'refused' OR error IS NOT NULL),
  CONSTRAINT settled_has_a_time CHECK ((state = 'settled') = (settled_at IS NOT NULL))
);
COMMENT ON TABLE  catalog.source_files IS 'Files of watched folders. The row is the truth: a file that was submitted is not imported again, moved away or not.';
COMMENT ON COLUMN catalog.source_files.id IS 'Order in which files were first seen.';
COMMENT ON COLUMN catalog.source_files.source IS 'The watched folder, catalog.sources.name.';
COMMENT ON COLUMN catalog.source_files.name IS 'The file''s name in the folder.';
COMMENT ON COLUMN catalog.source_files.stamp IS 'Tells one version from another: size in bytes, time of the last change in nanoseconds, inode.';
COMMENT ON COLUMN catalog.source_files.size_bytes IS 'Its size in bytes when last looked at.';
COMMENT ON COLUMN catalog.source_files.state IS 'waiting: not taken yet. submitted: taken, its import is under way or over. refused: it cannot be imported. settled: moved to done or failed, or gone.';
COMMENT ON COLUMN catalog.source_files.import_id IS 'Its import, catalog.imports.id.';
COMMENT ON COLUMN catalog.source_files.error IS 'Why it was refused or cannot be read or moved, or why its import failed.';
COMMENT ON COLUMN catalog.source_files.moved_to IS 'Where it is now, below the folder; null: not moved, or gone before that.';
COMMENT ON COLUMN catalog.source_files.seen_at IS 'When this version of it was first seen.';
COMMENT ON COLUMN catalog.source_files.settled_at IS 'When it was moved away or found gone.';
CREATE UNIQUE INDEX source_files_unsettled ON catalog.source_files (source, name) WHERE state <> 'settled';
CREATE INDEX source_files_settled ON catalog.source_files (source, id) WHERE state = 'settled';
COMMENT ON INDEX catalog.source_files_unsettled IS 'At most one unsettled row for each file in the folder.';
COMMENT ON INDEX catalog.source_files_settled IS 'The last files of a source.';
