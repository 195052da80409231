-- Drivers as they start, JDBC's DatabaseMetaData, BI tools and database browsers.
-- class: tools
-- who: ann

-- case: JDBC extra float digits
SET extra_float_digits = 3

-- case: JDBC application name
SET application_name = 'PostgreSQL JDBC Driver'

-- case: JDBC tables
SELECT current_database() AS "TABLE_CAT", n.nspname AS "TABLE_SCHEM", c.relname AS "TABLE_NAME",  CASE n.nspname ~ '^pg_' OR n.nspname = 'information_schema'  WHEN true THEN CASE  WHEN n.nspname = 'pg_catalog' OR n.nspname = 'information_schema' THEN CASE c.relkind   WHEN 'r' THEN 'SYSTEM TABLE'   WHEN 'v' THEN 'SYSTEM VIEW'   WHEN 'i' THEN 'SYSTEM INDEX'   ELSE NULL   END  WHEN n.nspname = 'pg_toast' THEN CASE c.relkind   WHEN 'r' THEN 'SYSTEM TOAST TABLE'   WHEN 'i' THEN 'SYSTEM TOAST INDEX'   ELSE NULL   END  ELSE CASE c.relkind   WHEN 'r' THEN 'TEMPORARY TABLE'   WHEN 'p' THEN 'TEMPORARY TABLE'   WHEN 'i' THEN 'TEMPORARY INDEX'   WHEN 'S' THEN 'TEMPORARY SEQUENCE'   WHEN 'v' THEN 'TEMPORARY VIEW'   ELSE NULL   END  END  WHEN false THEN CASE c.relkind  WHEN 'r' THEN 'TABLE'  WHEN 'p' THEN 'PARTITIONED TABLE'  WHEN 'i' THEN 'INDEX'  WHEN 'P' then 'PARTITIONED INDEX'  WHEN 'S' THEN 'SEQUENCE'  WHEN 'v' THEN 'VIEW'  WHEN 'c' THEN 'TYPE'  WHEN 'f' THEN 'FOREIGN TABLE'  WHEN 'm' THEN 'MATERIALIZED VIEW'  ELSE NULL  END  ELSE NULL  END  AS "TABLE_TYPE", d.description AS "REMARKS",  '' as "TYPE_CAT", '' as "TYPE_SCHEM", '' as "TYPE_NAME", '' AS "SELF_REFERENCING_COL_NAME", '' AS "REF_GENERATION"  FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c  LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0  and d.classoid = 'pg_class'::regclass)  WHERE c.relnamespace = n.oid  AND n.nspname LIKE 'shop' ORDER BY "TABLE_TYPE","TABLE_SCHEM","TABLE_NAME"

-- case: JDBC columns
SELECT * FROM (SELECT current_database() AS current_database, n.nspname,c.relname,a.attname,a.atttypid,a.attnotnull OR (t.typtype = 'd' AND t.typnotnull) AS attnotnull,a.atttypmod,a.attlen,t.typtypmod,row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS attnum, nullif(a.attidentity, '') as attidentity,nullif(a.attgenerated, '') as attgenerated,pg_catalog.pg_get_expr(def.adbin, def.adrelid) AS adsrc,dsc.description,t.typbasetype,t.typtype  FROM pg_catalog.pg_namespace n  JOIN pg_catalog.pg_class c ON (c.relnamespace = n.oid)  JOIN pg_catalog.pg_attribute a ON (a.attrelid=c.oid)  JOIN pg_catalog.pg_type t ON (a.atttypid = t.oid)  LEFT JOIN pg_catalog.pg_attrdef def ON (a.attrelid=def.adrelid AND a.attnum = def.adnum)  LEFT JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)  LEFT JOIN pg_catalog.pg_class dc ON (dc.oid=dsc.classoid AND dc.relname='pg_class')  LEFT JOIN pg_catalog.pg_namespace dn ON (dc.relnamespace=dn.oid AND dn.nspname='pg_catalog')  WHERE c.relkind in ('r','p','v','f','m') and a.attnum > 0 AND NOT a.attisdropped  AND n.nspname LIKE 'shop' AND c.relname LIKE 'payments') c WHERE true  ORDER BY nspname,c.relname,attnum

-- case: JDBC primary keys
SELECT        result."TABLE_CAT",        result."TABLE_SCHEM",        result."TABLE_NAME",        result."COLUMN_NAME",        result."KEY_SEQ",        result."PK_NAME" FROM      (SELECT current_database() AS "TABLE_CAT", n.nspname AS "TABLE_SCHEM",  ct.relname AS "TABLE_NAME", a.attname AS "COLUMN_NAME",  (information_schema._pg_expandarray(i.indkey)).n AS "KEY_SEQ", ci.relname AS "PK_NAME",  information_schema._pg_expandarray(i.indkey) AS "KEYS", a.attnum AS "A_ATTNUM" FROM pg_catalog.pg_class ct  JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid)  JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid)  JOIN pg_catalog.pg_index i ON ( a.attrelid = i.indrelid)  JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE true  AND n.nspname = 'shop' AND ct.relname = 'payments' AND i.indisprimary  ) result where  result."A_ATTNUM" = (result."KEYS").x  ORDER BY result."TABLE_NAME", result."PK_NAME", result."KEY_SEQ"

-- case: JDBC imported keys
SELECT current_database() AS "PKTABLE_CAT", pkn.nspname AS "PKTABLE_SCHEM", pkc.relname AS "PKTABLE_NAME", pka.attname AS "PKCOLUMN_NAME", fkn.nspname AS "FKTABLE_SCHEM", fkc.relname AS "FKTABLE_NAME", fka.attname AS "FKCOLUMN_NAME", pos.n AS "KEY_SEQ", con.conname AS "FK_NAME", pkic.relname AS "PK_NAME" FROM  pg_catalog.pg_namespace pkn, pg_catalog.pg_class pkc, pg_catalog.pg_attribute pka,  pg_catalog.pg_namespace fkn, pg_catalog.pg_class fkc, pg_catalog.pg_attribute fka,  pg_catalog.pg_constraint con,  pg_catalog.generate_series(1, 32) pos(n),  pg_catalog.pg_class pkic WHERE pkn.oid = pkc.relnamespace AND pkc.oid = pka.attrelid AND pka.attnum = con.confkey[pos.n] AND con.confrelid = pkc.oid  AND fkn.oid = fkc.relnamespace AND fkc.oid = fka.attrelid AND fka.attnum = con.conkey[pos.n] AND con.conrelid = fkc.oid  AND con.contype = 'f'  AND (pkic.relkind = 'i' OR pkic.relkind = 'I') AND pkic.oid = con.conindid AND fkn.nspname = 'shop' AND fkc.relname = 'payments' ORDER BY pkn.nspname,pkc.relname, con.conname,pos.n

-- case: JDBC index info
SELECT tmp."TABLE_SCHEM", tmp."TABLE_NAME", tmp."NON_UNIQUE", tmp."INDEX_NAME", tmp."ORDINAL_POSITION", trim(both '"' from pg_catalog.pg_get_indexdef(tmp.ci_oid, tmp."ORDINAL_POSITION", false)) AS "COLUMN_NAME" FROM (SELECT n.nspname AS "TABLE_SCHEM", ct.relname AS "TABLE_NAME", NOT i.indisunique AS "NON_UNIQUE", ci.relname AS "INDEX_NAME", (information_schema._pg_expandarray(i.indkey)).n AS "ORDINAL_POSITION", ci.oid AS ci_oid FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid) JOIN pg_catalog.pg_index i ON (ct.oid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) JOIN pg_catalog.pg_am am ON (ci.relam = am.oid) WHERE true AND n.nspname = 'shop' AND ct.relname = 'customers') AS tmp ORDER BY "NON_UNIQUE", "INDEX_NAME", "ORDINAL_POSITION"

-- case: JDBC schemas
SELECT nspname AS "TABLE_SCHEM", current_database() AS "TABLE_CATALOG" FROM pg_catalog.pg_namespace  WHERE nspname <> 'pg_toast' AND (nspname !~ '^pg_temp_'  OR nspname = (pg_catalog.current_schemas(true))[1]) AND (nspname !~ '^pg_toast_temp_'  OR nspname = replace((pg_catalog.current_schemas(true))[1], 'pg_temp_', 'pg_toast_temp_'))  ORDER BY "TABLE_SCHEM"

-- case: JDBC type by name
SELECT typinput='pg_catalog.array_in'::regproc as is_array, typtype, typname, pg_type.oid   FROM pg_catalog.pg_type   LEFT JOIN (select ns.oid as nspoid, ns.nspname, r.r           from pg_namespace as ns           join ( select s.r, (current_schemas(false))[s.r] as nspname                    from generate_series(1, array_upper(current_schemas(false), 1)) as s(r) ) as r          using ( nspname )        ) as sp     ON sp.nspoid = typnamespace  WHERE pg_type.oid = 25  ORDER BY sp.r, pg_type.oid DESC

-- case: JDBC functions
SELECT current_database() AS "FUNCTION_CAT", n.nspname AS "FUNCTION_SCHEM", p.proname AS "FUNCTION_NAME", d.description AS "REMARKS", p.proname || '_' || p.oid AS "SPECIFIC_NAME" FROM pg_catalog.pg_proc p INNER JOIN pg_catalog.pg_namespace n ON p.pronamespace=n.oid LEFT JOIN pg_catalog.pg_description d ON p.oid=d.objoid WHERE true AND n.nspname LIKE 'vault' ORDER BY 2, 3, p.oid::text

-- case: JDBC typical statement
-- values: 3
select id, item from shop.orders where customer_id = $1 order by id

-- case: JDBC validity check
SELECT 1

-- case: psycopg2 isolation
SET datestyle TO 'ISO'

-- case: psycopg2 begin
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY
-- then
SELECT item FROM shop.orders WHERE id = 1
-- then
COMMIT

-- case: asyncpg type introspection
WITH RECURSIVE typeinfo_tree(oid, ns, name, kind, basetype, elemtype, elemdelim, range_subtype, attrtypoids, attrnames, depth) AS (
    SELECT ti.oid, ti.ns, ti.name, ti.kind, ti.basetype, ti.elemtype, ti.elemdelim, ti.range_subtype, ti.attrtypoids, ti.attrnames, 0
    FROM (SELECT t.oid AS oid, ns.nspname AS ns, t.typname AS name, t.typtype AS kind,
        (CASE WHEN t.typtype = 'd' THEN (WITH RECURSIVE typebases(oid, depth) AS (SELECT t2.typbasetype AS oid, 0 AS depth FROM pg_type t2 WHERE t2.oid = t.oid UNION ALL SELECT t2.typbasetype AS oid, tb.depth + 1 AS depth FROM pg_type t2, typebases tb WHERE tb.oid = t2.oid AND t2.typbasetype != 0) SELECT oid FROM typebases ORDER BY depth DESC LIMIT 1) ELSE NULL END) AS basetype,
        t.typelem AS elemtype, elem_t.typdelim AS elemdelim, range_t.rngsubtype AS range_subtype,
        (CASE WHEN t.typtype = 'c' THEN (SELECT array_agg(ia.atttypid ORDER BY ia.attnum) FROM pg_attribute ia INNER JOIN pg_class c ON (ia.attrelid = c.oid) WHERE ia.attnum > 0 AND NOT ia.attisdropped AND c.reltype = t.oid) ELSE NULL END) AS attrtypoids,
        (CASE WHEN t.typtype = 'c' THEN (SELECT array_agg(ia.attname::text ORDER BY ia.attnum) FROM pg_attribute ia INNER JOIN pg_class c ON (ia.attrelid = c.oid) WHERE ia.attnum > 0 AND NOT ia.attisdropped AND c.reltype = t.oid) ELSE NULL END) AS attrnames
    FROM pg_catalog.pg_type AS t INNER JOIN pg_catalog.pg_namespace ns ON (ns.oid = t.typnamespace) LEFT JOIN pg_type elem_t ON (t.typlen = -1 AND t.typelem != 0 AND t.typelem = elem_t.oid) LEFT JOIN pg_range range_t ON (t.oid = range_t.rngtypid)) AS ti
    WHERE ti.oid = any(ARRAY['vault.pair'::regtype::oid])
) SELECT DISTINCT *, basetype::regtype::text AS basetype_name, elemtype::regtype::text AS elemtype_name, range_subtype::regtype::text AS range_subtype_name FROM typeinfo_tree ORDER BY depth DESC

-- case: asyncpg settings
SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new

-- case: npgsql types
SELECT version()
-- then
SELECT ns.nspname, t.oid, t.typname, t.typtype, t.typnotnull, t.elemtypoid FROM (SELECT typ.oid, typ.typnamespace, typ.typname, typ.typtype, typ.typrelid, typ.typnotnull, typ.relkind, elemtyp.oid AS elemtypoid FROM (SELECT typ.oid, typnamespace, typname, typrelid, typnotnull, relkind, typelem AS elemoid, CASE WHEN proc.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype FROM pg_type AS typ LEFT JOIN pg_class AS cls ON (cls.oid = typ.typrelid) LEFT JOIN pg_proc AS proc ON proc.oid = typ.typreceive) AS typ LEFT JOIN pg_type AS elemtyp ON elemtyp.oid = elemoid) AS t JOIN pg_namespace AS ns ON (ns.oid = typnamespace) WHERE typtype IN ('b', 'r', 'm', 'e', 'd') ORDER BY t.oid

-- case: pgx begin read only
begin isolation level serializable read only deferrable
-- then
select id from shop.orders where id = 2
-- then
commit

-- case: lib/pq time zone
SET TIME ZONE 'UTC'
-- then
SELECT now() - now(), '2026-01-01'::timestamptz

-- case: statement timeout
SET statement_timeout = 30000
-- then
SHOW statement_timeout
-- then
SET statement_timeout TO DEFAULT

-- case: Metabase databases
SELECT datname FROM pg_database WHERE datistemplate = false AND datname LIKE 'vault%' ORDER BY 1

-- case: Metabase privileges
SELECT NULL AS role, t.schemaname AS schema, t.objectname AS table, pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' || replace(t.objectname, '"', '""') || '"', 'update') AS update, pg_catalog.has_table_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' || replace(t.objectname, '"', '""') || '"', 'SELECT') AS select FROM (SELECT schemaname, tablename AS objectname FROM pg_catalog.pg_tables UNION SELECT schemaname, viewname AS objectname FROM pg_catalog.pg_views UNION SELECT schemaname, matviewname AS objectname FROM pg_catalog.pg_matviews) t WHERE t.schemaname !~ '^pg_' AND t.schemaname <> 'information_schema' AND pg_catalog.has_schema_privilege(current_user, t.schemaname, 'USAGE') ORDER BY 2, 3

-- case: Metabase question
SELECT date_trunc('day', "shop"."orders"."placed_at") AS "placed_at", count(*) AS "count", sum("shop"."orders"."total") AS "sum" FROM "shop"."orders" GROUP BY date_trunc('day', "shop"."orders"."placed_at") ORDER BY date_trunc('day', "shop"."orders"."placed_at") ASC

-- case: Metabase fingerprint
SELECT "shop"."orders"."id" AS "id", substring("shop"."orders"."item", 1, 1234) AS "substring" FROM "shop"."orders" ORDER BY 1 LIMIT 100

-- case: Metabase filter values
SELECT "shop"."orders"."item" AS "item" FROM "shop"."orders" GROUP BY "shop"."orders"."item" ORDER BY "shop"."orders"."item" ASC LIMIT 1001

-- case: Grafana version
SELECT current_setting('server_version_num')::int/100 AS version

-- case: Grafana tables
SELECT CASE WHEN quote_ident(table_schema) = 'public' THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table" FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache') ORDER BY 1

-- case: Grafana columns
SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns WHERE quote_ident(table_schema) || '.' || quote_ident(table_name) = 'shop.orders' ORDER BY ordinal_position

-- case: Grafana time series
SELECT floor(extract(epoch from placed_at)/86400)*86400 AS "time", avg(total) AS "total" FROM shop.orders WHERE placed_at BETWEEN '2026-01-01T00:00:00Z' AND '2026-02-01T00:00:00Z' GROUP BY time ORDER BY time

-- case: DBeaver database
SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate ORDER BY db.datname

-- case: DBeaver schemas
-- ways: simple, text
SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass WHERE n.nspname !~ '^pg_(toast_)?temp' ORDER BY nspname

-- case: DBeaver tables
SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr,  pg_catalog.pg_get_partkeydef(c.oid) as partition_key FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass WHERE c.relnamespace='vault'::regnamespace AND c.relkind not in ('i','I','c') ORDER BY c.oid

-- case: DBeaver attributes
SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid) LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum) LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid) LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') AND c.oid='shop.orders'::regclass ORDER BY a.attnum

-- case: DBeaver constraints
SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description, case when c.contype='c' then substring(pg_catalog.pg_get_constraintdef(c.oid), 7) else null end consrc_copy FROM pg_catalog.pg_constraint c INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass WHERE c.conrelid='shop.payments'::regclass ORDER BY c.oid

-- case: DBeaver grid
SELECT t.ctid, t.id, t.customer_id, t.item FROM shop.orders t ORDER BY t.id LIMIT 200

-- case: DataGrip server
select version() as version, current_database() as db, current_schema() as s, pg_catalog.pg_is_in_recovery() as r

-- case: DataGrip types
select T.oid as object_id, T.typname as object_name, T.typtype as type_sub_kind, T.typcategory as type_category, C.relkind as class_kind, T.typbasetype as base_type_id, case when T.typtype in ('c','e') then null else pg_catalog.format_type(T.typbasetype, T.typtypmod) end as definition, T.typndims as dimensions_number, T.typdefault as default_expression, T.typnotnull as mandatory from pg_catalog.pg_type T left outer join pg_catalog.pg_class C on T.typrelid = C.oid where T.typnamespace = 'vault'::regnamespace and (T.typtype in ('d','e') or C.relkind = 'c'::"char" or T.typtype = 'b' and T.typelem = 0) order by 1

-- case: DataGrip sources
select T.relkind as view_kind, T.oid as view_id, pg_catalog.pg_get_viewdef(T.oid, true) as source_text from pg_catalog.pg_class T join pg_catalog.pg_namespace N on T.relnamespace = N.oid where N.nspname = 'vault' and T.relkind in ('m','v') order by 2

-- case: DataGrip routines
select A.oid as r_id, A.proname as r_name, A.proargnames as arg_names, A.proargmodes as arg_modes, A.proargtypes::int[] as in_arg_types, A.proallargtypes::int[] as all_arg_types, pg_catalog.pg_get_expr(A.proargdefaults, 0) as arg_defaults, A.prorettype as ret_type_id, A.prokind as kind, A.provolatile as volatile_kind, A.proisstrict as is_strict, A.prosecdef as is_security_definer from pg_catalog.pg_proc A where A.pronamespace = 'vault'::regnamespace order by A.oid

-- case: DataGrip triggers
select T.tgrelid as table_id, T.oid as trigger_id, T.tgname as trigger_name, T.tgfoid as function_id, pg_catalog.encode(T.tgargs, 'escape') as function_args, T.tgtype as bits, T.tgenabled as trigger_fire_mode, pg_catalog.pg_get_triggerdef(T.oid) as definition from pg_catalog.pg_trigger T join pg_catalog.pg_class TC on TC.oid = T.tgrelid where TC.relnamespace = 'vault'::regnamespace and not T.tgisinternal order by 2

-- case: pgAdmin locks
SELECT locktype, mode, granted FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'pg_locks'::regclass

-- case: table statistics
SELECT relname, n_live_tup >= 0 AS counted FROM pg_stat_user_tables WHERE schemaname = 'shop' ORDER BY relname

-- case: sizes
SELECT pg_relation_size('shop.orders') >= 0, pg_total_relation_size('shop.orders') > 0, pg_size_pretty(8192::bigint)

-- case: conninfo
SELECT current_database(), current_user, session_user

-- case: time
SELECT now() IS NOT NULL, current_date > '2020-01-01'

-- case: prepared
PREPARE by_id (integer) AS SELECT item FROM shop.orders WHERE id = $1
-- then
EXECUTE by_id(5)
-- then
DEALLOCATE by_id

-- case: cursor
BEGIN
-- then
DECLARE c NO SCROLL CURSOR FOR SELECT id, item FROM shop.orders ORDER BY id
-- then
FETCH FORWARD 7 FROM c
-- then
CLOSE c
-- then
COMMIT

-- case: what the catalogue says of a masked column
SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'shop' AND column_name IN ('card_number', 'iban') ORDER BY 1

-- case: card by equality
-- who: ann
-- values: 0000 0000
SELECT id, amount FROM shop.payments WHERE card_number = $1
