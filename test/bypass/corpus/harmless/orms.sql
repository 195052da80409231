-- What ORMs send to look at a database, and for the records of an application.
-- class: orm
-- who: ann dee

-- case: ActiveRecord type map
SELECT t.oid, t.typname FROM pg_type as t WHERE t.typname IN ('int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'numeric', 'bool', 'timestamp', 'timestamptz')

-- case: ActiveRecord additional types
SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype
FROM pg_type as t
LEFT JOIN pg_range as r ON oid = rngtypid
WHERE
  t.typname IN ('int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'text', 'varchar', 'char', 'name', 'bpchar', 'bool', 'bit', 'varbit', 'date', 'money', 'bytea', 'point', 'hstore', 'json', 'jsonb', 'cidr', 'inet', 'uuid', 'xml', 'tsvector', 'macaddr', 'citext', 'ltree', 'line', 'lseg', 'box', 'path', 'polygon', 'circle', 'numeric', 'interval', 'time', 'timestamp', 'timestamptz')
  OR t.typtype IN ('r', 'e', 'd')
  OR t.typinput = 'array_in(cstring,oid,integer)'::regprocedure
  OR t.typelem != 0

-- case: ActiveRecord column definitions
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
       pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod,
       c.collname, col_description(a.attrelid, a.attnum) AS comment,
       attidentity AS identity,
       attgenerated as attgenerated
  FROM pg_attribute a
  LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  LEFT JOIN pg_type t ON a.atttypid = t.oid
  LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> t.typcollation
 WHERE a.attrelid = '"shop"."payments"'::regclass
   AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum

-- case: ActiveRecord primary keys
SELECT a.attname
  FROM (
         SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx
           FROM pg_index
          WHERE indrelid = '"shop"."payments"'::regclass
            AND indisprimary
       ) i
  JOIN pg_attribute a
    ON a.attrelid = i.indrelid
   AND a.attnum = i.indkey[i.idx]
 ORDER BY i.idx

-- case: ActiveRecord indexes
SELECT distinct i.relname, d.indisunique, d.indkey, pg_get_indexdef(d.indexrelid), t.oid,
                pg_catalog.obj_description(i.oid, 'pg_class') AS comment, d.indisvalid
FROM pg_class t
INNER JOIN pg_index d ON t.oid = d.indrelid
INNER JOIN pg_class i ON d.indexrelid = i.oid
LEFT JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE i.relkind IN ('i', 'I')
  AND d.indisprimary = 'f'
  AND t.relname = 'customers'
  AND n.nspname = 'shop'
ORDER BY i.relname

-- case: ActiveRecord foreign keys
SELECT t2.oid::regclass::text AS to_table, a1.attname AS column, a2.attname AS primary_key, c.conname AS name, c.confupdtype AS on_update, c.confdeltype AS on_delete, c.convalidated AS valid, c.condeferrable AS deferrable, c.condeferred AS deferred, c.conkey, c.confkey, c.conrelid, c.confrelid
FROM pg_constraint c
JOIN pg_class t1 ON c.conrelid = t1.oid
JOIN pg_class t2 ON c.confrelid = t2.oid
JOIN pg_attribute a1 ON a1.attnum = c.conkey[1] AND a1.attrelid = t1.oid
JOIN pg_attribute a2 ON a2.attnum = c.confkey[1] AND a2.attrelid = t2.oid
JOIN pg_namespace t3 ON c.connamespace = t3.oid
WHERE c.contype = 'f'
  AND t1.relname = 'payments'
  AND t3.nspname = 'shop'
ORDER BY c.conname

-- case: ActiveRecord data sources
SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY (current_schemas(false)) AND c.relkind IN ('r','v','m','p','f')

-- case: ActiveRecord find by id
-- values: 7|1
SELECT "orders".* FROM "shop"."orders" WHERE "orders"."id" = $1 LIMIT $2

-- case: ActiveRecord exists
-- values: 3|1
SELECT 1 AS one FROM "shop"."orders" WHERE "orders"."customer_id" = $1 LIMIT $2

-- case: ActiveRecord pluck
SELECT "orders"."item" FROM "shop"."orders" ORDER BY "orders"."id" ASC

-- case: ActiveRecord count
SELECT COUNT(*) FROM "shop"."payments"

-- case: ActiveRecord masked table without the masked column
-- who: ann
-- values: 3
SELECT "payments"."id", "payments"."amount", "payments"."note" FROM "shop"."payments" WHERE "payments"."customer_id" = $1

-- case: ActiveRecord sum and average
SELECT SUM("payments"."amount") AS sum_amount, AVG("payments"."amount") AS avg_amount, "payments"."customer_id" FROM "shop"."payments" GROUP BY "payments"."customer_id" ORDER BY "payments"."customer_id"

-- case: Django tables
SELECT c.relname,
CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END,
obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class c
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v')
  AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
  AND pg_catalog.pg_table_is_visible(c.oid)

-- case: Django table description
SELECT
    a.attname AS column_name,
    NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)) AS is_nullable,
    pg_get_expr(ad.adbin, ad.adrelid) AS column_default,
    CASE WHEN collname = 'default' THEN NULL ELSE collname END AS collation,
    a.attidentity != '' AS is_autofield,
    col_description(a.attrelid, a.attnum) AS column_comment
FROM pg_attribute a
LEFT JOIN pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
LEFT JOIN pg_collation co ON a.attcollation = co.oid
JOIN pg_type t ON a.atttypid = t.oid
JOIN pg_class c ON a.attrelid = c.oid
JOIN pg_namespace n ON c.relnamespace = n.oid
WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v')
    AND c.relname = 'orders'
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast')

-- case: Django constraints
SELECT
    c.conname,
    array(
        SELECT attname
        FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx)
        JOIN pg_attribute AS ca ON cols.colid = ca.attnum
        WHERE ca.attrelid = c.conrelid
        ORDER BY cols.arridx
    ),
    c.contype,
    (SELECT fkc.relname || '.' || fka.attname
    FROM pg_attribute AS fka
    JOIN pg_class AS fkc ON fka.attrelid = fkc.oid
    WHERE fka.attrelid = c.confrelid AND fka.attnum = c.confkey[1]),
    cl.reloptions
FROM pg_constraint AS c
JOIN pg_class AS cl ON c.conrelid = cl.oid
WHERE cl.relname = 'payments' ORDER BY 1

-- case: Django empty row of a table
SELECT "id", "customer_id", "item" FROM "shop"."orders" LIMIT 1

-- case: Django select related
SELECT "orders"."id", "orders"."item", "orders"."total", "customers"."id", "customers"."name", "customers"."email" FROM "shop"."orders" INNER JOIN "shop"."customers" ON ("orders"."customer_id" = "customers"."id") WHERE "orders"."total" > 20 ORDER BY "orders"."id" ASC LIMIT 21

-- case: Django annotate
SELECT "customers"."id", "customers"."name", COUNT("orders"."id") AS "n" FROM "shop"."customers" LEFT OUTER JOIN "shop"."orders" ON ("customers"."id" = "orders"."customer_id") GROUP BY "customers"."id" ORDER BY "n" DESC, "customers"."id" ASC

-- case: Django date hierarchy
SELECT DISTINCT (DATE_TRUNC('month', "orders"."placed_at" AT TIME ZONE 'UTC')) AS "datefield" FROM "shop"."orders" WHERE "orders"."placed_at" IS NOT NULL ORDER BY 1 ASC

-- case: Hibernate by id
-- values: 4
select o1_0.id,o1_0.customer_id,o1_0.item,o1_0.placed_at,o1_0.total from shop.orders o1_0 where o1_0.id=$1

-- case: Hibernate join fetch
-- values: 2
select c1_0.id,c1_0.email,c1_0.name,o1_0.customer_id,o1_0.id,o1_0.item from shop.customers c1_0 left join shop.orders o1_0 on c1_0.id=o1_0.customer_id where c1_0.id=$1 order by o1_0.id

-- case: Hibernate page
-- values: 5|5
select o1_0.id,o1_0.item from shop.orders o1_0 order by o1_0.total desc,o1_0.id offset $1 rows fetch first $2 rows only

-- case: Hibernate sequences
select * from information_schema.sequences

-- case: SQLAlchemy version
select pg_catalog.version()

-- case: SQLAlchemy schema
select current_schema()

-- case: SQLAlchemy strings
show standard_conforming_strings

-- case: SQLAlchemy isolation
show transaction isolation level

-- case: SQLAlchemy hstore
SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'

-- case: SQLAlchemy has table
SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace WHERE pg_catalog.pg_class.relname = 'orders' AND pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p', 'f', 'v', 'm']) AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid) AND pg_catalog.pg_namespace.nspname != 'pg_catalog'

-- case: SQLAlchemy columns
SELECT pg_catalog.pg_attribute.attname AS name, pg_catalog.format_type(pg_catalog.pg_attribute.atttypid, pg_catalog.pg_attribute.atttypmod) AS format_type, (SELECT pg_catalog.pg_get_expr(pg_catalog.pg_attrdef.adbin, pg_catalog.pg_attrdef.adrelid) AS pg_get_expr_1
FROM pg_catalog.pg_attrdef
WHERE pg_catalog.pg_attrdef.adrelid = pg_catalog.pg_attribute.attrelid AND pg_catalog.pg_attrdef.adnum = pg_catalog.pg_attribute.attnum AND pg_catalog.pg_attribute.atthasdef) AS "default", pg_catalog.pg_attribute.attnotnull AS not_null, pg_catalog.pg_class.relname AS table_name, pg_catalog.pg_description.description AS comment, pg_catalog.pg_attribute.attgenerated AS generated, (SELECT json_build_object('always', pg_catalog.pg_attribute.attidentity = 'a', 'start', pg_catalog.pg_sequence.seqstart, 'increment', pg_catalog.pg_sequence.seqincrement, 'min', pg_catalog.pg_sequence.seqmin, 'max', pg_catalog.pg_sequence.seqmax, 'cache', pg_catalog.pg_sequence.seqcache, 'cycle', pg_catalog.pg_sequence.seqcycle) AS json_build_object_1
FROM pg_catalog.pg_sequence
WHERE pg_catalog.pg_attribute.attidentity != '' AND pg_catalog.pg_sequence.seqrelid = CAST(CAST(pg_catalog.pg_get_serial_sequence(CAST(CAST(pg_catalog.pg_attribute.attrelid AS REGCLASS) AS TEXT), pg_catalog.pg_attribute.attname) AS REGCLASS) AS OID)) AS identity_options
FROM pg_catalog.pg_class LEFT OUTER JOIN pg_catalog.pg_attribute ON pg_catalog.pg_class.oid = pg_catalog.pg_attribute.attrelid AND pg_catalog.pg_attribute.attnum > 0 AND NOT pg_catalog.pg_attribute.attisdropped LEFT OUTER JOIN pg_catalog.pg_description ON pg_catalog.pg_description.objoid = pg_catalog.pg_attribute.attrelid AND pg_catalog.pg_description.objsubid = pg_catalog.pg_attribute.attnum JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace
WHERE pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p', 'f', 'v', 'm']) AND pg_catalog.pg_namespace.nspname = 'shop' ORDER BY pg_catalog.pg_class.relname, pg_catalog.pg_attribute.attnum

-- case: SQLAlchemy enums
SELECT pg_catalog.pg_type.typname AS name, pg_catalog.pg_type_is_visible(pg_catalog.pg_type.oid) AS visible, pg_catalog.pg_namespace.nspname AS schema, lbl_agg.labels AS labels
FROM pg_catalog.pg_type JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_type.typnamespace LEFT OUTER JOIN (SELECT pg_catalog.pg_enum.enumtypid AS enumtypid, array_agg(CAST(pg_catalog.pg_enum.enumlabel AS TEXT) ORDER BY pg_catalog.pg_enum.enumsortorder) AS labels
FROM pg_catalog.pg_enum GROUP BY pg_catalog.pg_enum.enumtypid) AS lbl_agg ON pg_catalog.pg_type.oid = lbl_agg.enumtypid
WHERE pg_catalog.pg_type.typtype = 'e' ORDER BY pg_catalog.pg_namespace.nspname, pg_catalog.pg_type.typname

-- case: SQLAlchemy select
SELECT shop.orders.id AS shop_orders_id, shop.orders.item AS shop_orders_item FROM shop.orders WHERE shop.orders.id IN (1, 2, 3) ORDER BY shop.orders.id

-- case: SQLAlchemy subquery load
SELECT anon_1.id, o.id AS order_id, o.item FROM (SELECT c.id AS id FROM shop.customers AS c WHERE c.id < 4) AS anon_1 JOIN shop.orders AS o ON anon_1.id = o.customer_id ORDER BY o.id

-- case: Prisma schema
SELECT
  tbl.relname AS table_name,
  namespace.nspname AS namespace,
  (tbl.relhassubclass AND tbl.relkind = 'p') AS is_partition,
  tbl.relrowsecurity AS has_row_level_security,
  (tbl.relhassubclass AND tbl.relkind = 'r') AS has_subclass,
  obj_description(tbl.oid, 'pg_class') AS description
FROM pg_class AS tbl
INNER JOIN pg_namespace AS namespace ON namespace.oid = tbl.relnamespace
WHERE tbl.relkind IN ('r', 'p') AND namespace.nspname = ANY (ARRAY['shop'])
ORDER BY namespace, table_name

-- case: Prisma columns
SELECT oid.namespace, info.table_name, info.column_name, format_type(att.atttypid, att.atttypmod) AS formatted_type, info.numeric_precision, info.numeric_scale, info.numeric_precision_radix, info.datetime_precision, info.data_type, info.udt_schema AS type_schema_name, info.udt_name AS full_data_type, pg_get_expr(attdef.adbin, attdef.adrelid) AS column_default, info.is_nullable, info.is_identity, info.character_maximum_length
FROM information_schema.columns info
JOIN pg_attribute att ON att.attname = info.column_name
JOIN (SELECT pg_class.oid, relname, pg_namespace.nspname AS namespace FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace AND pg_namespace.nspname = ANY (ARRAY['shop']) WHERE reltype > 0) AS oid ON oid.oid = att.attrelid AND relname = info.table_name AND namespace = info.table_schema
LEFT JOIN pg_attrdef attdef ON attdef.adrelid = att.attrelid AND attdef.adnum = att.attnum AND table_schema = namespace
WHERE table_schema = ANY (ARRAY['shop'])
ORDER BY namespace, table_name, ordinal_position

-- case: Prisma find many
-- values: 30|10|0
SELECT "shop"."orders"."id", "shop"."orders"."item", "shop"."orders"."total" FROM "shop"."orders" WHERE "shop"."orders"."id" < $1 ORDER BY "shop"."orders"."id" ASC LIMIT $2 OFFSET $3

-- case: Prisma aggregate
-- values: 0
SELECT COUNT(*), SUM("total") FROM (SELECT "shop"."orders"."id", "shop"."orders"."total" FROM "shop"."orders" WHERE 1=1 ORDER BY "shop"."orders"."id" ASC OFFSET $1) AS "sub"

-- case: TypeORM database
SELECT * FROM current_database()

-- case: TypeORM version
SELECT version()

-- case: TypeORM columns
SELECT columns.*, pg_catalog.col_description(('"' || table_catalog || '"."' || table_schema || '"."' || table_name || '"')::regclass::oid, ordinal_position) AS description, ('"' || "udt_schema" || '"."' || "udt_name" || '"')::"regtype" AS "regtype", pg_catalog.format_type("col_attr"."atttypid", "col_attr"."atttypmod") AS "format_type" FROM "information_schema"."columns" LEFT JOIN "pg_catalog"."pg_attribute" AS "col_attr" ON "col_attr"."attname" = "columns"."column_name" AND "col_attr"."attrelid" = ( SELECT "cls"."oid" FROM "pg_catalog"."pg_class" AS "cls" LEFT JOIN "pg_catalog"."pg_namespace" AS "ns" ON "ns"."oid" = "cls"."relnamespace" WHERE "cls"."relname" = "columns"."table_name" AND "ns"."nspname" = "columns"."table_schema" ) WHERE ("table_schema" = 'shop' AND "table_name" = 'orders') ORDER BY ordinal_position

-- case: TypeORM find
-- values: 2
SELECT "Order"."id" AS "Order_id", "Order"."item" AS "Order_item" FROM "shop"."orders" "Order" WHERE (("Order"."customer_id" = $1)) ORDER BY "Order_id" ASC

-- case: TypeORM distinct pages
SELECT DISTINCT "distinctAlias"."Customer_id" AS "ids_Customer_id" FROM (SELECT "Customer"."id" AS "Customer_id", "Customer"."name" AS "Customer_name", "o"."id" AS "o_id" FROM "shop"."customers" "Customer" LEFT JOIN "shop"."orders" "o" ON "o"."customer_id" = "Customer"."id") "distinctAlias" ORDER BY "Customer_id" ASC LIMIT 5

-- case: GORM has table
-- values: shop|orders|BASE TABLE
SELECT count(*) FROM information_schema.tables WHERE table_schema = $1 AND table_name = $2 AND table_type = $3

-- case: GORM columns
SELECT c.column_name, c.is_nullable = 'YES', c.udt_name, c.character_maximum_length, c.numeric_precision, c.numeric_precision_radix, c.numeric_scale, c.datetime_precision, 8 * typlen, c.column_default, pd.description, c.identity_increment FROM information_schema.columns AS c JOIN pg_type AS pgt ON c.udt_name = pgt.typname LEFT JOIN pg_catalog.pg_description as pd ON pd.objsubid = c.ordinal_position AND pd.objoid = (SELECT oid FROM pg_catalog.pg_class WHERE relname = c.table_name AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = c.table_schema)) where table_catalog = current_database() AND table_schema = 'shop' AND table_name = 'orders' ORDER BY c.ordinal_position

-- case: GORM first
SELECT * FROM "shop"."orders" WHERE "orders"."id" = 10 ORDER BY "orders"."id" LIMIT 1

-- case: Ecto all
-- values: 20
SELECT o0."id", o0."item", o0."total" FROM "shop"."orders" AS o0 WHERE (o0."total" > $1::numeric) ORDER BY o0."id"

-- case: Ecto preload
-- values: {1,2,3}
SELECT o0."id", o0."customer_id", o0."item", o0."customer_id" FROM "shop"."orders" AS o0 WHERE (o0."customer_id" = ANY($1)) ORDER BY o0."customer_id", o0."id"

-- case: Postgrex bootstrap
SELECT t.oid, t.typname, t.typsend, t.typreceive, t.typoutput, t.typinput,
       coalesce(d.typelem, t.typelem), coalesce(r.rngsubtype, 0), ARRAY (
  SELECT a.atttypid
  FROM pg_attribute AS a
  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ORDER BY a.attnum
)
FROM pg_type AS t
LEFT JOIN pg_type AS d ON t.typbasetype = d.oid
LEFT JOIN pg_range AS r ON r.rngtypid = t.oid OR r.rngmultitypid = t.oid OR (t.typbasetype <> 0 AND r.rngtypid = t.typbasetype)
WHERE (t.typrelid = 0)
AND (t.typelem = 0 OR NOT EXISTS (SELECT 1 FROM pg_catalog.pg_type s WHERE s.typrelid != 0 AND s.oid = t.typelem))

-- case: jOOQ select
-- values: 5
select "shop"."orders"."id", "shop"."orders"."item" from "shop"."orders" where "shop"."orders"."id" = cast($1 as int)

-- case: jOOQ multiset
select "c"."name", (select coalesce(jsonb_agg(jsonb_build_array("t"."v0")), jsonb_build_array()) from (select "o"."item" as "v0" from "shop"."orders" as "o" where "o"."customer_id" = "c"."id" order by "o"."id") as "t") from "shop"."customers" as "c" order by "c"."id"

-- case: jOOQ generator schemas
select "pg_catalog"."pg_namespace"."nspname" from "pg_catalog"."pg_namespace" order by "pg_catalog"."pg_namespace"."nspname"

-- case: Sequelize authenticate
SELECT 1+1 AS result

-- case: Sequelize describe
SELECT pk.constraint_type as "Constraint", c.column_name as "Field", c.column_default as "Default", c.is_nullable as "Null", (CASE WHEN c.udt_name = 'hstore' THEN c.udt_name ELSE c.data_type END) || (CASE WHEN c.character_maximum_length IS NOT NULL THEN '(' || c.character_maximum_length || ')' ELSE '' END) as "Type", (SELECT array_agg(e.enumlabel) FROM pg_catalog.pg_type t JOIN pg_catalog.pg_enum e ON t.oid=e.enumtypid WHERE t.typname=c.udt_name) AS "special", (SELECT pgd.description FROM pg_catalog.pg_statio_all_tables AS st INNER JOIN pg_catalog.pg_description pgd on (pgd.objoid=st.relid) WHERE c.ordinal_position=pgd.objsubid AND c.table_name=st.relname) AS "Comment" FROM information_schema.columns c LEFT JOIN (SELECT tc.table_schema, tc.table_name, cu.column_name, tc.constraint_type FROM information_schema.TABLE_CONSTRAINTS tc JOIN information_schema.KEY_COLUMN_USAGE cu ON tc.table_schema=cu.table_schema and tc.table_name=cu.table_name and tc.constraint_name=cu.constraint_name and tc.constraint_type='PRIMARY KEY') pk ON pk.table_schema=c.table_schema AND pk.table_name=c.table_name AND pk.column_name=c.column_name WHERE c.table_name = 'orders' AND c.table_schema = 'shop' ORDER BY c.ordinal_position

-- case: Sequelize indexes
SELECT i.relname AS name, ix.indisprimary AS primary, ix.indisunique AS unique, ix.indkey AS indkey, array_agg(a.attnum) as column_indexes, array_agg(a.attname) AS column_names, pg_get_indexdef(ix.indexrelid) AS definition FROM pg_class t, pg_class i, pg_index ix, pg_attribute a, pg_namespace s WHERE t.oid = ix.indrelid AND i.oid = ix.indexrelid AND a.attrelid = t.oid AND t.relkind = 'r' and t.relname = 'customers' AND s.oid = t.relnamespace AND s.nspname = 'shop' GROUP BY i.relname, ix.indexrelid, ix.indisprimary, ix.indisunique, ix.indkey ORDER BY i.relname

-- case: Sequelize find and count
SELECT count(*) AS "count" FROM "shop"."orders" AS "Order" WHERE "Order"."item" LIKE 'item 1%'

-- case: search by name in any case
SELECT id, name FROM shop.customers WHERE lower(name) LIKE 'customer 1%' ORDER BY name

-- case: window over orders
SELECT id, customer_id, total, row_number() OVER (PARTITION BY customer_id ORDER BY total DESC) AS place FROM shop.orders ORDER BY id

-- case: masked table joined on its key
-- who: ann
SELECT p.id, p.amount, o.item FROM shop.payments p JOIN shop.orders o ON o.customer_id = p.customer_id ORDER BY p.id, o.id

-- case: view of a masked table without the masked column
SELECT customer_id, name, email, amount FROM shop.customer_payments ORDER BY payment_id

-- case: is there a card at all
SELECT id, card_number IS NOT NULL AS has_card, iban_given FROM shop.payments p, LATERAL (SELECT c.name AS iban_given FROM shop.customers c WHERE c.id = p.customer_id) x ORDER BY id

-- case: rows counted by hidden columns that are there
SELECT count(card_number), count(*) FROM shop.payments
