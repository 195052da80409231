-- Other ways out: errors, notices, COPY, notifications, statistics, large objects, settings, locks, rules and triggers.
-- class: sides
-- who: eve

-- case: cast error
SELECT card::int FROM vault.cards WHERE id = 3

-- case: cast error of a date
SELECT mail::date FROM vault.cards WHERE id = 3

-- case: cast error of json
SELECT mail::json FROM vault.cards WHERE id = 3

-- case: error of an enum or name
SELECT mail::regclass FROM vault.cards WHERE id = 4

-- case: error of an array
SELECT ('{' || mail)::int[] FROM vault.cards WHERE id = 3

-- case: error of a setting
SELECT set_config(mail, '1', true) FROM vault.cards WHERE id = 3

-- case: error of a domain
-- dull: round Weir both databases answer alike
SELECT mail::vault.card_no, card::uuid FROM vault.cards WHERE id = 3

-- case: detail of a unique key
BEGIN
-- then
INSERT INTO vault.fenced (id, card, label, score) SELECT 9, card, 'x', 1 FROM vault.fenced WHERE id = 1
-- then
ROLLBACK

-- case: detail of a check
BEGIN
-- then
UPDATE vault.fenced SET score = 0 WHERE id = 1
-- then
ROLLBACK

-- case: detail of not null
BEGIN
-- then
UPDATE vault.fenced SET label = NULL WHERE id = 1
-- then
ROLLBACK

-- case: detail of a foreign key
BEGIN
-- then
DELETE FROM vault.fenced WHERE id = 1
-- then
ROLLBACK

-- case: detail of an exclusion
BEGIN
-- then
INSERT INTO vault.apart SELECT 9, card FROM vault.apart WHERE id = 1
-- then
ROLLBACK

-- case: detail of a partition
-- dull: round Weir both databases answer alike
BEGIN
-- then
UPDATE vault.parts SET id = 99 WHERE id = 1
-- then
ROLLBACK

-- case: a whole table of failing rows
-- dull: round Weir both databases answer alike
BEGIN
-- then
ALTER TABLE vault.fenced ADD CONSTRAINT c CHECK (card < '5')
-- then
ROLLBACK

-- case: unique index built
-- dull: round Weir both databases answer alike
BEGIN
-- then
CREATE UNIQUE INDEX ON vault.cards ((left(card, 1)))
-- then
ROLLBACK

-- case: notice of a trigger
BEGIN
-- then
UPDATE vault.noisy SET label = 'x' WHERE id = 1
-- then
ROLLBACK

-- case: error of a trigger
BEGIN
-- then
DELETE FROM vault.strict WHERE id = 1
-- then
ROLLBACK

-- case: notification of a trigger
LISTEN shouting
-- then
UPDATE vault.shouting SET label = label WHERE id = 1
-- then
SELECT 1

-- case: answer of a rule
INSERT INTO vault.ruled (id, card, label) VALUES (1, 'x', 'y')

-- case: count of a trigger
-- dull: round Weir both databases answer alike
BEGIN
-- then
UPDATE vault.silent SET label = label
-- then
ROLLBACK

-- case: notification
LISTEN a
-- then
SELECT pg_notify('a', card) FROM vault.cards WHERE id = 3
-- then
SELECT 1

-- case: notification of a channel
LISTEN a
-- then
SELECT pg_notify('a', string_agg(reverse(card), '')) FROM vault.cards
-- then
SELECT 1

-- case: returning
BEGIN
-- then
UPDATE vault.cards SET owner = owner RETURNING card, reverse(mail)
-- then
ROLLBACK

-- case: delete returning
BEGIN
-- then
DELETE FROM vault.wide RETURNING wide
-- then
ROLLBACK

-- case: insert returning
BEGIN
-- then
INSERT INTO sandbox.kept SELECT id, card FROM vault.cards RETURNING txt
-- then
ROLLBACK

-- case: update from returning
BEGIN
-- then
UPDATE vault.notes n SET body = body FROM vault.cards c WHERE c.id = n.card_id RETURNING c.card || ''
-- then
ROLLBACK

-- case: stored and read
BEGIN
-- then
UPDATE vault.notes n SET body = c.card FROM vault.cards c WHERE c.id = n.card_id
-- then
TABLE vault.notes
-- then
ROLLBACK

-- case: stored in its own table
BEGIN
-- then
UPDATE vault.cards SET owner = card
-- then
SELECT owner FROM vault.cards ORDER BY id
-- then
ROLLBACK

-- case: swapped
BEGIN
-- then
UPDATE vault.cards SET owner = card, card = owner
-- then
SELECT owner FROM vault.cards ORDER BY id
-- then
ROLLBACK

-- case: stored as a number
BEGIN
-- then
UPDATE vault.cards SET level = substr(card, 1, 4)::int WHERE id = 3
-- then
SELECT level FROM vault.cards WHERE id = 3
-- then
ROLLBACK

-- case: data-modifying query
BEGIN
-- then
WITH d AS (DELETE FROM vault.points RETURNING *) SELECT card || '' FROM d
-- then
ROLLBACK

-- case: data-modifying store
BEGIN
-- then
WITH i AS (INSERT INTO sandbox.kept SELECT id, mail FROM vault.cards RETURNING 1) SELECT count(*) FROM i
-- then
SELECT txt FROM sandbox.kept
-- then
ROLLBACK

-- case: on conflict excluded
BEGIN
-- then
INSERT INTO vault.notes SELECT id, 1, card, 'x' FROM vault.cards ON CONFLICT (id) DO UPDATE SET body = excluded.body RETURNING body
-- then
ROLLBACK

-- case: merge insert
BEGIN
-- then
MERGE INTO sandbox.kept k USING vault.cards c ON false WHEN NOT MATCHED THEN INSERT VALUES (c.id, c.card)
-- then
SELECT txt FROM sandbox.kept
-- then
ROLLBACK

-- case: renamed column
BEGIN
-- then
ALTER TABLE vault.cards RENAME card TO plain
-- then
SELECT plain FROM vault.cards ORDER BY id
-- then
ROLLBACK

-- case: renamed table
BEGIN
-- then
ALTER TABLE vault.cards RENAME TO plain
-- then
SELECT card FROM vault.plain ORDER BY id
-- then
ROLLBACK

-- case: moved table
BEGIN
-- then
ALTER TABLE vault.cards SET SCHEMA sandbox
-- then
SELECT card FROM sandbox.cards ORDER BY id
-- then
ROLLBACK

-- case: view of one's own
BEGIN
-- then
CREATE VIEW sandbox.v AS SELECT card AS x FROM vault.cards
-- then
SELECT x FROM sandbox.v
-- then
ROLLBACK

-- case: table of one's own
BEGIN
-- then
CREATE TABLE sandbox.t AS SELECT id, card AS x FROM vault.cards
-- then
SELECT x FROM sandbox.t
-- then
ROLLBACK

-- case: selected into
BEGIN
-- then
SELECT card AS x INTO TEMP y FROM vault.cards
-- then
SELECT x FROM y
-- then
ROLLBACK

-- case: materialised by oneself
BEGIN
-- then
CREATE MATERIALIZED VIEW sandbox.m AS SELECT reverse(card) AS x FROM vault.cards
-- then
SELECT x FROM sandbox.m
-- then
ROLLBACK

-- case: table like it, inherited
BEGIN
-- then
CREATE TABLE sandbox.i () INHERITS (vault.cards)
-- then
INSERT INTO sandbox.i SELECT * FROM vault.cards
-- then
SELECT card FROM sandbox.i
-- then
ROLLBACK

-- case: default of a column
BEGIN
-- then
CREATE TABLE sandbox.d (id int, x text DEFAULT vault.card_of(3))
-- then
INSERT INTO sandbox.d (id) VALUES (1) RETURNING x
-- then
ROLLBACK

-- case: generated by oneself
BEGIN
-- then
ALTER TABLE vault.cards ADD g text GENERATED ALWAYS AS (reverse(card)) STORED
-- then
SELECT g FROM vault.cards
-- then
ROLLBACK

-- case: rule of one's own
BEGIN
-- then
CREATE TABLE sandbox.r (id int)
-- then
CREATE RULE r AS ON INSERT TO sandbox.r DO INSTEAD SELECT card FROM vault.cards
-- then
INSERT INTO sandbox.r VALUES (1)
-- then
ROLLBACK

-- case: trigger of one's own
BEGIN
-- then
CREATE FUNCTION sandbox.t() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION '%', (SELECT card FROM vault.cards WHERE id = 3); END$$
-- then
CREATE TABLE sandbox.tt (id int)
-- then
CREATE TRIGGER t BEFORE INSERT ON sandbox.tt FOR EACH ROW EXECUTE FUNCTION sandbox.t()
-- then
INSERT INTO sandbox.tt VALUES (1)
-- then
ROLLBACK

-- case: code block
DO $$BEGIN RAISE NOTICE '%', (SELECT string_agg(card, ',') FROM vault.cards); END$$

-- case: dynamic in a block
DO $$DECLARE r text; BEGIN EXECUTE 'SELECT c' || 'ard FROM vault.cards WHERE id = 3' INTO r; RAISE EXCEPTION '%', r; END$$

-- case: copy table
COPY vault.cards TO STDOUT

-- case: copy columns
COPY vault.cards (card, id) TO STDOUT (FORMAT csv, DELIMITER '5')

-- case: copy binary
COPY vault.wide TO STDOUT (FORMAT binary)

-- case: copy partition
COPY vault.parts_low TO STDOUT

-- case: copy of a returning
BEGIN
-- then
COPY (UPDATE vault.cards SET owner = owner RETURNING card) TO STDOUT
-- then
ROLLBACK

-- case: copy of materialised
COPY (TABLE vault.m_computed) TO STDOUT (FORMAT csv, HEADER)

-- case: copy in with an error
-- ways: simple
-- dull: the server quotes the key that the client sent itself
BEGIN
-- then
COPY vault.fenced (id, card, label, score) FROM STDIN
-- rows: 1\tx\ty\t1\n
-- then
ROLLBACK

-- case: large object
SELECT lo_get(content) FROM vault.blobs

-- case: large object by its number
SELECT lo_get(90001)

-- case: large object read
BEGIN
-- then
SELECT loread(lo_open(90001, 262144), 100)
-- then
ROLLBACK

-- case: large object's part
SELECT lo_get(90001, 2, 6), convert_from(lo_get(90001), 'utf8')

-- case: large object made
SELECT lo_get(lo_from_bytea(0, card::bytea)) FROM vault.cards WHERE id = 3

-- case: large object table
-- who: max
SELECT data FROM pg_largeobject WHERE loid = 90001

-- case: statistics
SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE schemaname = 'vault' AND attname IN ('card', 'mail')

-- case: statistics of a function
-- who: max
SELECT stavalues1::text FROM pg_statistic WHERE starelid = 'vault.cards'::regclass

-- case: statistics of columns together
SELECT most_common_vals FROM pg_stats_ext WHERE statistics_name = 'cards_stat'

-- case: statistics as text
SELECT p::text FROM pg_stats p WHERE tablename = 'wide'

-- case: widths
SELECT attname, avg_width, n_distinct, correlation FROM pg_stats WHERE tablename IN ('cards', 'sizes')

-- case: query as xml
SELECT query_to_xml('SELECT card FROM vault.cards', true, false, '')

-- case: table as xml
SELECT table_to_xml('vault.cards', true, false, ''), schema_to_xml('vault', true, false, '')

-- case: cursor as xml
BEGIN
-- then
DECLARE c CURSOR FOR SELECT card FROM vault.cards
-- then
SELECT cursor_to_xml('c', 10, true, false, '')
-- then
ROLLBACK

-- case: statistics of words
SELECT word FROM ts_stat('SELECT to_tsvector(''simple'', card) FROM vault.cards')

-- case: rewritten query
SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, plainto_tsquery(''simple'', reverse(card)) FROM vault.cards WHERE id = 3')

-- case: setting
SELECT set_config('my.x', card, false) FROM vault.cards WHERE id = 3
-- then
SHOW my.x

-- case: setting by a block
SELECT set_config('my.y', reverse(mail), false) FROM vault.cards WHERE id = 3
-- then
SELECT current_setting('my.y'), setting FROM pg_settings WHERE name = 'my.y'

-- case: prepared in text
PREPARE a AS SELECT card FROM vault.cards WHERE id = $1
-- then
EXECUTE a(3)
-- then
EXPLAIN (VERBOSE, ANALYZE, COSTS off, TIMING off, SUMMARY off) EXECUTE a(3)

-- case: prepared with a test
PREPARE a(text) AS SELECT id FROM vault.cards WHERE card < $1
-- then
EXECUTE a('56')

-- case: cursor over a test
BEGIN
-- then
DECLARE c SCROLL CURSOR FOR SELECT id FROM vault.cards ORDER BY card
-- then
FETCH LAST FROM c
-- then
ROLLBACK

-- case: cursor moved
BEGIN
-- then
DECLARE c CURSOR FOR SELECT 1 FROM vault.cards WHERE card LIKE '56%'
-- then
MOVE ALL FROM c
-- then
ROLLBACK

-- case: cursor with hold
DECLARE c CURSOR WITH HOLD FOR SELECT mail || '' FROM vault.cards
-- then
FETCH ALL FROM c
-- then
CLOSE c

-- case: updated through a cursor
BEGIN
-- then
DECLARE c CURSOR FOR SELECT * FROM vault.cards FOR UPDATE
-- then
FETCH 3 FROM c
-- then
UPDATE vault.cards SET owner = 'x' WHERE CURRENT OF c RETURNING card || ''
-- then
ROLLBACK

-- case: foreign file
SELECT card || '' FROM vault.f_file

-- case: foreign table
SELECT card, owner FROM vault.f_cards

-- case: foreign row
SELECT f::text FROM vault.f_cards f

-- case: foreign test
SELECT owner FROM vault.f_cards WHERE card < '9'

-- case: another connection
-- who: max
SELECT * FROM danger.dblink('host=' || current_setting('unix_socket_directories') || ' dbname=' || current_database() || ' port=' || current_setting('port'), 'SELECT card FROM vault.cards') AS t(c text)

-- case: pages
-- who: max
SELECT t_data FROM danger.heap_page_items(danger.get_raw_page('vault.cards', 0))

-- case: index pages
-- who: max
SELECT data FROM danger.bt_page_items('vault.cards_card', 1)

-- case: server file as a text
-- who: max
SELECT pg_read_file((SELECT split_part(option_value, ',', 1) FROM pg_options_to_table((SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'vault.f_file'::regclass)) WHERE option_name = 'filename'))

-- case: index only
SELECT card FROM vault.cards WHERE card > '' ORDER BY card

-- case: plan with values
-- compare: no
-- dull: as tests in a view
EXPLAIN (ANALYZE, VERBOSE, COSTS off, TIMING off, SUMMARY off) SELECT * FROM vault.v_where

-- case: plan of an insert
-- dull: round Weir both databases answer alike
BEGIN
-- then
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) DELETE FROM vault.notes USING vault.cards c WHERE c.id = card_id AND c.card < '566'
-- then
ROLLBACK

-- case: statistics of activity
BEGIN
-- then
SELECT count(*) FROM vault.cards WHERE card LIKE '56%'
-- then
SELECT seq_tup_read > 0 FROM pg_stat_xact_user_tables WHERE relname = 'cards'
-- then
ROLLBACK

-- case: size of a table made
-- dull: round Weir both databases answer alike
BEGIN
-- then
CREATE TEMP TABLE z AS SELECT repeat(card, 900) AS r FROM vault.cards
-- then
SELECT sum(pg_column_size(r)) FROM z
-- then
ROLLBACK
