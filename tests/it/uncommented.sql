-- Every object of ours without a COMMENT. Left out: what sqlx makes for itself, partitions and
-- their indexes (the parent's comment holds for them), columns of views (their tables say it), and
-- what belongs to a commented object: identity sequences, indexes behind constraints.
WITH ours AS (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT IN ('information_schema', 'public') AND nspname !~ '^pg_'),
relation AS (
  SELECT c.oid, c.relkind, n.nspname || '.' || c.relname AS name
  FROM pg_class c JOIN ours n ON n.oid = c.relnamespace
  WHERE NOT c.relispartition AND c.relname NOT LIKE '\_migrations%'
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                    AND d.objid = c.oid AND d.deptype = 'i'))
SELECT 'schema ' || nspname AS name FROM ours
WHERE obj_description(oid, 'pg_namespace') IS NULL
UNION ALL
SELECT 'relation ' || name FROM relation
WHERE obj_description(oid, 'pg_class') IS NULL
UNION ALL
SELECT 'column ' || r.name || '.' || a.attname
FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid
WHERE r.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND col_description(a.attrelid, a.attnum) IS NULL
UNION ALL
SELECT 'function ' || p.oid::regprocedure FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace
WHERE obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT 'type ' || format_type(t.oid, NULL) FROM pg_type t JOIN ours n ON n.oid = t.typnamespace
WHERE t.typtype IN ('d', 'e') AND obj_description(t.oid, 'pg_type') IS NULL
ORDER BY name
