-- Functions, in SQL and PL/pgSQL, that exist and may be called.
-- class: functions
-- who: eve

-- case: sql
SELECT vault.card_of(3)

-- case: sql with names
SELECT vault.card_of_named(which => 3)

-- case: atomic
SELECT vault.card_of_atomic(3)

-- case: return
SELECT vault.card_of_return(4)

-- case: of a function
SELECT vault.card_of_two(3) || ''

-- case: row
SELECT vault.row_of(3), (vault.row_of(4)).card

-- case: set
SELECT * FROM vault.all_cards()

-- case: set as a column
SELECT vault.all_cards()

-- case: set and field
SELECT (vault.all_cards()).mail

-- case: table
SELECT what FROM vault.table_of()

-- case: record
SELECT b FROM vault.anything() AS f(a int, b text)

-- case: list
SELECT vault.list_of(1), unnest(vault.list_of(2))

-- case: default
SELECT vault.with_default(1)

-- case: path
SELECT vault.by_path(3)

-- case: for each row
SELECT n.id, vault.card_of(n.card_id) FROM vault.notes n

-- case: lateral
SELECT f FROM vault.notes n, LATERAL vault.card_of(n.card_id) f

-- case: plpgsql
SELECT vault.pl_card(3)

-- case: plpgsql assignment
SELECT vault.pl_assign(3)

-- case: plpgsql query
SELECT * FROM vault.pl_query(3)

-- case: plpgsql dynamic
SELECT * FROM vault.pl_dynamic('card', 'vault.cards')

-- case: plpgsql run
SELECT vault.pl_run('SELECT card FROM vault.cards WHERE id = 3')

-- case: notice
-- ways: simple, text, portal
SELECT vault.pl_notice(3)

-- case: error
SELECT vault.pl_error(3)

-- case: error code
SELECT vault.pl_code(4)

-- case: error fields
SELECT vault.pl_fields(3)

-- case: cursor
BEGIN
-- then
SELECT vault.pl_cursor()
-- then
FETCH ALL FROM leaky
-- then
ROLLBACK

-- case: store
BEGIN
-- then
SELECT vault.pl_store(3)
-- then
SELECT txt FROM sandbox.kept
-- then
ROLLBACK

-- case: setting
SELECT vault.pl_setting(3)
-- then
SELECT current_setting('my.card')

-- case: temporary table
SELECT vault.pl_temp()
-- then
SELECT card FROM pg_temp.leaky

-- case: slow
-- dull: round Weir both databases answer alike
-- takes: timing
-- ways: simple
SELECT vault.pl_sleep(3)

-- case: procedure
CALL vault.proc_card(3, NULL)

-- case: procedure notice
CALL vault.proc_notice(3)

-- case: twist
SELECT vault.twist(card), vault.pl_twist(card) FROM vault.cards

-- case: told in notices
-- ways: simple, text, portal
SELECT vault.tell(card) FROM vault.cards

-- case: definer
SELECT vault.secdef_card(3)

-- case: definer dynamic
SELECT vault.secdef_dynamic('SELECT string_agg(card, chr(44)) FROM vault.cards')

-- case: function in where
-- dull: round Weir both databases answer alike
SELECT id FROM vault.notes WHERE vault.card_of(card_id) < '566'

-- case: function in order
SELECT id FROM vault.notes ORDER BY vault.pl_card(card_id)

-- case: function in a limit
SELECT n FROM generate_series(1, 9) n LIMIT substr(vault.card_of(3), 2, 1)::int

-- case: cast of a function
SELECT vault.card_of(3)::int

-- case: explained
-- dull: the plan shows the query and no value
EXPLAIN (VERBOSE, COSTS off) SELECT vault.card_of_return(3), 1 WHERE vault.card_of(3) > ''

-- case: made by oneself, with a test
-- undo: DROP FUNCTION IF EXISTS sandbox.ask(text)
CREATE FUNCTION sandbox.ask(p text) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM vault.cards WHERE id = 3 AND card LIKE p)'
-- then
SELECT sandbox.ask('56%')

-- case: made by oneself, with a branch
-- undo: DROP FUNCTION IF EXISTS sandbox.ask1(text)
CREATE FUNCTION sandbox.ask1(p text) RETURNS int LANGUAGE plpgsql AS $$BEGIN IF (SELECT card FROM vault.cards WHERE id = 3) LIKE p THEN RETURN 1; END IF; RETURN 0; END$$
-- then
SELECT sandbox.ask1('56%')

-- case: made by oneself, with a case
-- undo: DROP FUNCTION IF EXISTS sandbox.ask2(text)
CREATE FUNCTION sandbox.ask2(p text) RETURNS int LANGUAGE sql AS 'SELECT CASE WHEN card LIKE p THEN 1 ELSE 0 END FROM vault.cards WHERE id = 3'
-- then
SELECT sandbox.ask2('56%')

-- case: made by oneself, without a reading weir knows
CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS 'SELECT card FROM vault.cards WHERE id = 3'
-- then
SELECT pg_temp.f()

-- case: temporary table that shadows a name
CREATE TEMP TABLE cards AS SELECT 3 AS id, 'x' AS card
-- then
SELECT vault.by_path(3), vault.card_of(3)

-- case: path that shadows a function
-- undo: DROP FUNCTION IF EXISTS sandbox.lower(text)
CREATE FUNCTION sandbox.lower(text) RETURNS text LANGUAGE sql AS 'SELECT card FROM vault.cards WHERE id = 3'
-- then
SET search_path = sandbox, pg_catalog
-- then
SELECT lower('x')
