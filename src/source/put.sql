-- Makes a source of the configuration ($11 its set) equal its definition; touches nothing where it
-- does already, so that updated_at tells. What was seen of another place is not what is there.
-- Plan: one insert by primary key.
INSERT INTO catalog.sources AS s
  (name, tenant, kind, location, pattern, ready, endpoint, region, secret_ref, options,
   config_set, origin)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'config')
ON CONFLICT (name) DO UPDATE SET
  tenant = excluded.tenant, kind = excluded.kind, location = excluded.location,
  pattern = excluded.pattern, ready = excluded.ready, endpoint = excluded.endpoint,
  region = excluded.region, secret_ref = excluded.secret_ref,
  options = excluded.options, updated_at = now(),
  -- A look that began before finds this raised, and looks again.
  seen_no = s.seen_no + 1, seen_etag = NULL, seen_modified = NULL, seen_stamp = NULL,
  seen_sha256 = NULL
WHERE s.origin = 'config' AND s.config_set = excluded.config_set
  AND (s.tenant, s.kind, s.location, s.pattern, s.ready, s.endpoint, s.region, s.secret_ref,
       s.options)
      IS DISTINCT FROM
      (excluded.tenant, excluded.kind, excluded.location, excluded.pattern, excluded.ready,
       excluded.endpoint, excluded.region, excluded.secret_ref, excluded.options)
