-- What applications and migrations write, by somebody who may. Everything is undone.
-- class: write
-- who: mig

-- case: ActiveRecord create
BEGIN
-- then
-- values: 901|1|item 900|12.50|2026-01-01 00:00:00+00
INSERT INTO "shop"."orders" ("id", "customer_id", "item", "total", "placed_at") VALUES ($1, $2, $3, $4, $5) RETURNING "id"
-- then
ROLLBACK

-- case: ActiveRecord update
BEGIN
-- then
-- values: item x|3
UPDATE "shop"."orders" SET "item" = $1 WHERE "orders"."id" = $2
-- then
ROLLBACK

-- case: ActiveRecord destroy
BEGIN
-- then
SAVEPOINT active_record_1
-- then
-- values: 4
DELETE FROM "shop"."orders" WHERE "orders"."id" = $1
-- then
RELEASE SAVEPOINT active_record_1
-- then
ROLLBACK

-- case: ActiveRecord create on a masked table
BEGIN
-- then
-- values: 902|1|0000|5.00|\N
INSERT INTO "shop"."payments" ("id", "customer_id", "card_number", "amount", "note") VALUES ($1, $2, $3, $4, $5) RETURNING "id", "amount"
-- then
ROLLBACK

-- case: update of a masked table's other column
BEGIN
-- then
UPDATE shop.payments SET note = 'checked' WHERE id = 2
-- then
SELECT note FROM shop.payments WHERE id = 2
-- then
ROLLBACK

-- case: update of the masked column itself
BEGIN
-- then
UPDATE shop.customers SET iban = 'none' WHERE id = 1
-- then
ROLLBACK

-- case: Django bulk create
BEGIN
-- then
INSERT INTO "shop"."orders" ("id", "customer_id", "item", "total", "placed_at") VALUES (903, 1, 'a', 1, '2026-01-01T00:00:00+00:00'::timestamptz), (904, 2, 'b', 2, '2026-01-01T00:00:00+00:00'::timestamptz) RETURNING "orders"."id"
-- then
ROLLBACK

-- case: Django get or create with a lock
BEGIN
-- then
SELECT "orders"."id", "orders"."item" FROM "shop"."orders" WHERE "orders"."id" = 1 LIMIT 21 FOR UPDATE
-- then
UPDATE "shop"."orders" SET "total" = ("orders"."total" + 1) WHERE "orders"."id" = 1
-- then
ROLLBACK

-- case: Hibernate versioned update
BEGIN
-- then
-- values: 1|item 9|5|9
update shop.orders set customer_id=$1,item=$2,total=$3 where id=$4
-- then
ROLLBACK

-- case: SQLAlchemy unit of work
BEGIN
-- then
INSERT INTO shop.orders (id, customer_id, item, total, placed_at) VALUES (905, 3, 'x', 3.5, '2026-02-02') RETURNING shop.orders.id
-- then
UPDATE shop.orders SET item='y' WHERE shop.orders.id = 905
-- then
DELETE FROM shop.orders WHERE shop.orders.id = 905
-- then
ROLLBACK

-- case: Prisma upsert
BEGIN
-- then
INSERT INTO "shop"."orders" ("id","customer_id","item","total","placed_at") VALUES (1,1,'up',1,'2026-01-01') ON CONFLICT ("id") DO UPDATE SET "item" = 'up' WHERE ("shop"."orders"."id" = 1 AND 1=1) RETURNING "shop"."orders"."id", "shop"."orders"."item"
-- then
ROLLBACK

-- case: GORM save
BEGIN
-- then
UPDATE "shop"."orders" SET "customer_id"=1,"item"='g',"total"=2 WHERE "id" = 2
-- then
ROLLBACK

-- case: Ecto insert all
BEGIN
-- then
INSERT INTO "shop"."orders" ("id","customer_id","item","total","placed_at") VALUES (906,1,'e',1,'2026-01-01'),(907,1,'f',1,'2026-01-01') ON CONFLICT DO NOTHING
-- then
ROLLBACK

-- case: jOOQ merge
BEGIN
-- then
merge into "shop"."orders" as o using (select 1 as id, 'm' as item) as s on (o.id = s.id) when matched then update set item = s.item when not matched then insert (id, customer_id, item, total, placed_at) values (s.id, 1, s.item, 1, '2026-01-01')
-- then
ROLLBACK

-- case: Sequelize transaction
START TRANSACTION
-- then
INSERT INTO "shop"."orders" ("id","customer_id","item","total","placed_at") VALUES (908,1,'s',1,'2026-01-01 00:00:00.000 +00:00') RETURNING "id","customer_id","item","total","placed_at"
-- then
ROLLBACK

-- case: delete with using
BEGIN
-- then
DELETE FROM shop.orders o USING shop.customers c WHERE o.customer_id = c.id AND c.name = 'Customer 2' RETURNING o.id
-- then
ROLLBACK

-- case: skip locked queue
BEGIN
-- then
UPDATE shop.orders SET item = 'taken' WHERE id = (SELECT id FROM shop.orders ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, item
-- then
ROLLBACK

-- case: copy in
-- ways: simple
BEGIN
-- then
-- rows: 909\t1\tc\t1\t2026-01-01\n
COPY shop.orders (id, customer_id, item, total, placed_at) FROM STDIN
-- then
SELECT item FROM shop.orders WHERE id = 909
-- then
ROLLBACK

-- case: copy out
COPY (SELECT id, item FROM shop.orders ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)

-- case: copy table out
COPY shop.orders TO STDOUT

-- case: explain
EXPLAIN (COSTS off) SELECT * FROM shop.orders WHERE id = 1

-- case: Rails schema migrations
CREATE TABLE IF NOT EXISTS "shop"."schema_migrations" ("version" character varying NOT NULL PRIMARY KEY)
-- then
CREATE TABLE IF NOT EXISTS "shop"."ar_internal_metadata" ("key" character varying NOT NULL PRIMARY KEY, "value" character varying, "created_at" timestamp(6) NOT NULL, "updated_at" timestamp(6) NOT NULL)
-- then
SELECT "schema_migrations"."version" FROM "shop"."schema_migrations" ORDER BY "schema_migrations"."version" ASC
-- then
INSERT INTO "shop"."schema_migrations" (version) VALUES ('20260101000000') RETURNING "version"
-- then
DROP TABLE "shop"."schema_migrations"
-- then
DROP TABLE "shop"."ar_internal_metadata"

-- case: Rails advisory lock
SELECT pg_try_advisory_lock(4919432194)
-- then
SELECT pg_advisory_unlock(4919432194)

-- case: Rails add column and index
BEGIN
-- then
ALTER TABLE "shop"."orders" ADD "state" character varying DEFAULT 'new' NOT NULL
-- then
CREATE INDEX "index_orders_on_state" ON "shop"."orders" ("state")
-- then
COMMENT ON COLUMN "shop"."orders"."state" IS 'new, paid or sent'
-- then
ALTER TABLE "shop"."orders" ADD CONSTRAINT "chk_state" CHECK (state IN ('new', 'paid'))
-- then
ROLLBACK

-- case: Flyway schema history
SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'shop')
-- then
SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'shop' AND c.relname = 'flyway_schema_history' AND c.relkind = 'r')
-- then
CREATE TABLE "shop"."flyway_schema_history" ("installed_rank" INT NOT NULL, "version" VARCHAR(50), "description" VARCHAR(200) NOT NULL, "type" VARCHAR(20) NOT NULL, "script" VARCHAR(1000) NOT NULL, "checksum" INTEGER, "installed_by" VARCHAR(100) NOT NULL, "installed_on" TIMESTAMP NOT NULL DEFAULT '2026-01-01', "execution_time" INTEGER NOT NULL, "success" BOOLEAN NOT NULL)
-- then
ALTER TABLE "shop"."flyway_schema_history" ADD CONSTRAINT "flyway_schema_history_pk" PRIMARY KEY ("installed_rank")
-- then
CREATE INDEX "flyway_schema_history_s_idx" ON "shop"."flyway_schema_history" ("success")
-- then
-- values: 1|1|init|SQL|V1__init.sql|42|weir_app|7|true
INSERT INTO "shop"."flyway_schema_history" ("installed_rank", "version", "description", "type", "script", "checksum", "installed_by", "execution_time", "success") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
-- then
SELECT "installed_rank","version","description","type","script","checksum","installed_on","installed_by","execution_time","success" FROM "shop"."flyway_schema_history" WHERE "installed_rank" > 0 ORDER BY "installed_rank"
-- then
DROP TABLE "shop"."flyway_schema_history"

-- case: Flyway lock
BEGIN
-- then
SELECT pg_try_advisory_xact_lock(77431)
-- then
ROLLBACK

-- case: Flyway session
SET search_path = "shop", "public"
-- then
SHOW search_path
-- then
SELECT current_user
-- then
RESET search_path

-- case: Liquibase change log lock
CREATE TABLE shop.databasechangeloglock (ID INTEGER NOT NULL, LOCKED BOOLEAN NOT NULL, LOCKGRANTED TIMESTAMP WITHOUT TIME ZONE, LOCKEDBY VARCHAR(255), CONSTRAINT databasechangeloglock_pkey PRIMARY KEY (ID))
-- then
DELETE FROM shop.databasechangeloglock
-- then
INSERT INTO shop.databasechangeloglock (ID, LOCKED) VALUES (1, FALSE)
-- then
SELECT LOCKED FROM shop.databasechangeloglock WHERE ID=1
-- then
UPDATE shop.databasechangeloglock SET LOCKED = TRUE, LOCKEDBY = 'ci', LOCKGRANTED = '2026-01-01' WHERE ID = 1 AND LOCKED = FALSE
-- then
DROP TABLE shop.databasechangeloglock

-- case: Liquibase change log
CREATE TABLE shop.databasechangelog (ID VARCHAR(255) NOT NULL, AUTHOR VARCHAR(255) NOT NULL, FILENAME VARCHAR(255) NOT NULL, DATEEXECUTED TIMESTAMP WITHOUT TIME ZONE NOT NULL, ORDEREXECUTED INTEGER NOT NULL, EXECTYPE VARCHAR(10) NOT NULL, MD5SUM VARCHAR(35))
-- then
SELECT COUNT(*) FROM shop.databasechangelog
-- then
SELECT MAX(ORDEREXECUTED) FROM shop.databasechangelog
-- then
SELECT * FROM shop.databasechangelog ORDER BY DATEEXECUTED ASC, ORDEREXECUTED ASC
-- then
DROP TABLE shop.databasechangelog

-- case: Alembic version table
CREATE TABLE shop.alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))
-- then
INSERT INTO shop.alembic_version (version_num) VALUES ('1975ea83b712') RETURNING shop.alembic_version.version_num
-- then
UPDATE shop.alembic_version SET version_num='27c6a30d7c24' WHERE shop.alembic_version.version_num = '1975ea83b712'
-- then
SELECT shop.alembic_version.version_num FROM shop.alembic_version
-- then
DROP TABLE shop.alembic_version

-- case: Alembic operations
CREATE TABLE shop.account (id INTEGER NOT NULL, name VARCHAR(50) NOT NULL, description TEXT, PRIMARY KEY (id))
-- then
ALTER TABLE shop.account ADD COLUMN last_seen TIMESTAMP WITHOUT TIME ZONE
-- then
ALTER TABLE shop.account ALTER COLUMN name TYPE VARCHAR(80)
-- then
CREATE UNIQUE INDEX ix_account_name ON shop.account (name)
-- then
ALTER TABLE shop.account RENAME COLUMN description TO about
-- then
DROP INDEX shop.ix_account_name
-- then
DROP TABLE shop.account

-- case: golang-migrate lock
-- values: 1091487441
SELECT pg_advisory_lock($1)
-- then
-- values: 1091487441
SELECT pg_advisory_unlock($1)

-- case: golang-migrate version
SELECT COUNT(1) FROM information_schema.tables WHERE table_schema = 'shop' AND table_name = 'schema_versions' LIMIT 1
-- then
CREATE TABLE IF NOT EXISTS "shop"."schema_versions" (version bigint not null primary key, dirty boolean not null)
-- then
TRUNCATE "shop"."schema_versions"
-- then
INSERT INTO "shop"."schema_versions" (version, dirty) VALUES (3, false)
-- then
SELECT version, dirty FROM "shop"."schema_versions" LIMIT 1
-- then
DROP TABLE "shop"."schema_versions"

-- case: Ecto migration lock
CREATE TABLE IF NOT EXISTS "shop"."ecto_migrations" ("version" bigint, "inserted_at" timestamp(0), PRIMARY KEY ("version"))
-- then
BEGIN
-- then
LOCK TABLE "shop"."ecto_migrations" IN SHARE UPDATE EXCLUSIVE MODE
-- then
SELECT s0."version"::bigint FROM "shop"."ecto_migrations" AS s0
-- then
COMMIT
-- then
DROP TABLE "shop"."ecto_migrations"

-- case: a view and its grants
CREATE VIEW shop.order_items AS SELECT id, item FROM shop.orders
-- then
GRANT SELECT ON shop.order_items TO weir_dba
-- then
SELECT count(*) FROM shop.order_items
-- then
DROP VIEW shop.order_items

-- case: temporary table
BEGIN
-- then
CREATE TEMPORARY TABLE batch (id integer, item text) ON COMMIT DROP
-- then
INSERT INTO batch SELECT id, item FROM shop.orders WHERE id < 5
-- then
ROLLBACK

-- case: analyze
BEGIN
-- then
ANALYZE shop.orders
-- then
ROLLBACK

-- case: lock as pg_dump does
BEGIN
-- then
LOCK TABLE shop.orders, shop.payments, vault.cards IN ACCESS SHARE MODE
-- then
ROLLBACK

-- case: several statements in one message
-- ways: simple
BEGIN; INSERT INTO shop.orders VALUES (910, 1, 'a', 1, '2026-01-01'); SELECT count(*) FROM shop.orders; ROLLBACK
