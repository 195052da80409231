-- They make something of their own whose reading brings a masked value out.
-- class: ddl
-- who: sam

-- case: copy of a temporary view
-- who: tom
-- startup: search_path=shop
CREATE TEMP VIEW orders AS SELECT id, card_number AS item FROM shop.payments
-- then
COPY (SELECT item FROM orders) TO STDOUT

-- case: view replaced in a transaction
-- who: sam
BEGIN
-- then
CREATE OR REPLACE VIEW sandbox.notes AS SELECT id, reverse(card_number) AS c FROM shop.payments
-- then
SELECT c FROM sandbox.notes
-- then
SELECT upper(c) FROM sandbox.notes
-- then
ROLLBACK

-- case: view replaced in a string
-- who: sam
BEGIN; CREATE OR REPLACE VIEW sandbox.notes AS SELECT id, reverse(card_number) AS c FROM shop.payments; SELECT c FROM sandbox.notes; ROLLBACK

-- case: view replaced under a statement
-- who: sam
-- undo: DROP VIEW IF EXISTS sandbox.o
CREATE VIEW sandbox.o AS SELECT id, item AS c FROM shop.orders
-- then
PREPARE p AS SELECT c || '' FROM sandbox.o
-- then
EXECUTE p
-- then
BEGIN
-- then
CREATE OR REPLACE VIEW sandbox.o AS SELECT id, reverse(card_number) AS c FROM shop.payments
-- then
EXECUTE p
-- then
ROLLBACK
-- then
DROP VIEW sandbox.o

-- case: operator over a function
-- who: sam
-- undo: DROP OPERATOR IF EXISTS sandbox.### (NONE, int); DROP FUNCTION IF EXISTS sandbox.f(int)
-- startup: search_path=sandbox
CREATE FUNCTION sandbox.f(int) RETURNS text LANGUAGE sql AS 'SELECT string_agg(reverse(card_number), '','') FROM shop.payments'
-- then
CREATE OPERATOR sandbox.### (FUNCTION = sandbox.f, RIGHTARG = int)
-- then
SELECT ### 1

-- case: operator over a built-in
-- who: sam
-- undo: DROP OPERATOR IF EXISTS sandbox.@@@ (tsquery, text)
-- startup: search_path=sandbox
CREATE OPERATOR sandbox.@@@ (FUNCTION = pg_catalog.ts_rewrite, LEFTARG = tsquery, RIGHTARG = text)
-- then
SELECT 'a'::tsquery @@@ 'SELECT ''a''::tsquery, plainto_tsquery(''simple'', reverse(card_number)) FROM shop.payments WHERE id = 3'

-- case: explain analyze
EXPLAIN ANALYZE SELECT 1 FROM generate_series(1, (SELECT substr(card_number, 1, 6)::int FROM shop.payments WHERE id = 3))

-- case: table of one's own
-- who: sam
-- undo: DROP TABLE IF EXISTS sandbox.t
CREATE TABLE sandbox.t AS SELECT reverse(card_number) AS c FROM shop.payments
-- then
SELECT c FROM sandbox.t
-- then
DROP TABLE sandbox.t

