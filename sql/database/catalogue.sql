-- What the schemas of the product are made of: each thing, the thing that it is a part of, and what it
-- is, as this server writes it. `grantee` is the role whose rights a line is about. Owners are left out,
-- and so is the table that says which migrations have run. NOT NULL is told with the column: from 18 on
-- a server has a constraint for it as well.
WITH schemas AS (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_namespace n
    WHERE n.nspname IN ('prepaid', 'revenue')
), relations AS (
    SELECT c.oid, c.relkind, c.relowner, c.relacl,
           format('%s %s.%s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'i' THEN 'index'
                  WHEN 'S' THEN 'sequence' ELSE 'relation' END, s.nspname, c.relname) AS thing,
           format('%s.%s', s.nspname, c.relname) AS name
    FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace
    WHERE c.relname NOT IN ('alembic_version', 'alembic_version_pkc')
), columns AS (
    SELECT r.oid, a.attnum, a.attacl, r.relowner, r.thing AS part_of,
           format('column %s.%s', r.name, a.attname) AS thing
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid
    WHERE r.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
), functions AS (
    SELECT p.oid, p.proowner, p.proacl,
           format('function %s.%s(%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
               AS thing
    FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace WHERE p.prokind IN ('f', 'p')
), rights AS (
    SELECT 'schema ' || nspname AS part_of, nspowner AS owner,
           coalesce(nspacl, acldefault('n', nspowner)) AS acl FROM schemas
    UNION ALL
    SELECT thing, relowner,
           coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
    FROM relations WHERE relkind NOT IN ('i', 'I')
    UNION ALL
    SELECT thing, relowner, attacl FROM columns
    UNION ALL
    SELECT thing, proowner, coalesce(proacl, acldefault('f', proowner)) FROM functions
)
SELECT r.thing, t.thing AS part_of, NULL AS grantee,
       concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity, c.relforcerowsecurity,
                 c.relreplident, i.indisvalid, q.seqtypid::regtype, q.seqstart, q.seqincrement, q.seqmin,
                 q.seqmax, q.seqcycle,
                 CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid)
                      WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END) AS definition
FROM relations r JOIN pg_class c ON c.oid = r.oid
LEFT JOIN pg_index i ON i.indexrelid = r.oid
LEFT JOIN pg_sequence q ON q.seqrelid = r.oid
LEFT JOIN pg_depend d ON d.objid = q.seqrelid AND d.classid = 'pg_class'::regclass
      AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
LEFT JOIN relations t ON t.oid = coalesce(i.indrelid, d.refobjid)
UNION ALL
SELECT c.thing, c.part_of, NULL,
       concat_ws(' ', row_number() OVER (PARTITION BY c.oid ORDER BY c.attnum),
                 format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
                 nullif(a.attcollation, 0)::regcollation, pg_get_expr(d.adbin, d.adrelid))
FROM columns c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = c.attnum
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = c.attnum
UNION ALL
SELECT format('constraint %s of %s', k.conname, r.name), r.thing, NULL, pg_get_constraintdef(k.oid)
FROM relations r JOIN pg_constraint k ON k.conrelid = r.oid WHERE k.contype NOT IN ('n', 't')
UNION ALL
SELECT format('trigger %s of %s', t.tgname, r.name), r.thing, NULL,
       concat(pg_get_triggerdef(t.oid), t.tgenabled)
FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
UNION ALL
SELECT thing, NULL, NULL, pg_get_functiondef(oid) FROM functions
UNION ALL
SELECT format('right of %s to %s', coalesce(g.rolname, 'everybody'), r.part_of), r.part_of,
       coalesce(g.rolname, 'everybody'),
       string_agg(concat(a.privilege_type, a.is_grantable), ' ' ORDER BY a.privilege_type)
FROM rights r CROSS JOIN LATERAL aclexplode(r.acl) a
LEFT JOIN pg_roles g ON g.oid = a.grantee
WHERE a.grantee <> r.owner
GROUP BY r.part_of, g.rolname
ORDER BY thing;
