-- Who may call: tokens of several tenants, keys that make a request safe to repeat, and an audit
-- log that nobody rewrites.

ALTER TABLE ingestd.api_tokens
  ADD COLUMN tenants text[] CHECK (cardinality(tenants) BETWEEN 1 AND 100),
  ADD COLUMN created_by text;
COMMENT ON COLUMN ingestd.api_tokens.tenants IS 'The tenants it is bound to; null: the one of tenant, and where that is null too, all.';
COMMENT ON COLUMN ingestd.api_tokens.created_by IS 'Who made it, as the audit log names people; null where that was not kept.';
COMMENT ON COLUMN ingestd.api_tokens.tenant IS 'The tenant it is bound to, of tokens that were made before tenants; null: see there.';

CREATE TABLE ingestd.idempotency_keys (
  caller       text NOT NULL,
  key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  request_hash bytea NOT NULL CHECK (length(request_hash) = 32),
  object       text,
  status       smallint,
  location     text,
  content_type text,
  body         bytea,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (caller, key)
);
COMMENT ON TABLE  ingestd.idempotency_keys IS 'Requests with an Idempotency-Key that changed something: written in the transaction of the change, the answer after it. Kept for 24 hours.';
COMMENT ON COLUMN ingestd.idempotency_keys.caller IS 'Whose key it is, as the audit log names people.';
COMMENT ON COLUMN ingestd.idempotency_keys.key IS 'The key as it was sent.';
COMMENT ON COLUMN ingestd.idempotency_keys.request_hash IS 'SHA-256 of method, path, query and body.';
COMMENT ON COLUMN ingestd.idempotency_keys.object IS 'What was made or changed, as the audit log names it; null where nothing was.';
COMMENT ON COLUMN ingestd.idempotency_keys.status IS 'The status of the answer; null: it was not kept, because the daemon died before.';
COMMENT ON COLUMN ingestd.idempotency_keys.location IS 'The answer''s Location.';
COMMENT ON COLUMN ingestd.idempotency_keys.content_type IS 'The answer''s Content-Type.';
COMMENT ON COLUMN ingestd.idempotency_keys.body IS 'The answer''s body.';
COMMENT ON COLUMN ingestd.idempotency_keys.created_at IS 'When the request came.';
CREATE INDEX idempotency_keys_age ON ingestd.idempotency_keys (created_at);
COMMENT ON INDEX ingestd.idempotency_keys_age IS 'Keys to forget.';

CREATE FUNCTION ingestd.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only'
    USING ERRCODE = 'insufficient_privilege',
          HINT = 'To thin it out, disable the trigger audit_log_append_only as the table''s owner, and enable it again.';
END $$;
COMMENT ON FUNCTION ingestd.refuse_audit_change() IS 'Refuses to change or remove entries of the audit log.';
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ingestd.audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION ingestd.refuse_audit_change();
COMMENT ON TRIGGER audit_log_append_only ON ingestd.audit_log IS 'Entries are added and never changed.';
