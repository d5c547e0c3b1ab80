-- What headers mean in the files of one owner, under a name, so that nobody writes it out each time.

CREATE TABLE catalog.header_maps (
  id         bigint GENERATED ALWAYS AS IDENTITY,
  tenant     text NOT NULL,
  name       text NOT NULL CONSTRAINT name_is_a_word CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  headers    jsonb NOT NULL CONSTRAINT headers_is_an_object CHECK (jsonb_typeof(headers) = 'object'),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant, name)
);
COMMENT ON TABLE  catalog.header_maps IS 'Saved mappings: what headers mean in the files of one owner. An import names one as mapping=@name; what its file was found to be is kept with the import, so that a change here changes no import that was accepted. At most a thousand an owner, looked through by primary key.';
COMMENT ON COLUMN catalog.header_maps.id IS 'Where a page of a list begins.';
COMMENT ON COLUMN catalog.header_maps.tenant IS 'The owner of the files.';
COMMENT ON COLUMN catalog.header_maps.name IS 'What an import names it by.';
COMMENT ON COLUMN catalog.header_maps.headers IS 'Fields by header: {"Artikelnr": "code", "Farbe": "attribute"}.';
COMMENT ON COLUMN catalog.header_maps.created_at IS 'When it was saved first.';
COMMENT ON COLUMN catalog.header_maps.updated_at IS 'When it was saved last.';
