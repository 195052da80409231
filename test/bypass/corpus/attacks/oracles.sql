-- What a statement does depends on a masked column that it does not show.
-- class: oracles
-- who: eve

-- case: like
SELECT id FROM vault.cards WHERE card LIKE '565%'

-- case: like digit by digit
SELECT n, (SELECT count(*) FROM vault.cards WHERE id = 3 AND card LIKE n || '%') FROM generate_series(50, 59) n

-- case: starts with
SELECT id FROM vault.cards WHERE card ^@ '56' OR starts_with(card, '500')

-- case: regular expression
SELECT owner FROM vault.cards WHERE card ~ '^5[6]'

-- case: similar to
SELECT owner FROM vault.cards WHERE card SIMILAR TO '56%'

-- case: between
SELECT id FROM vault.cards WHERE card BETWEEN '56' AND '57'

-- case: less
SELECT count(*) FROM vault.cards WHERE card < '51'

-- case: not equal to a part
SELECT id FROM vault.cards WHERE left(card, 2) <> '56'

-- case: order by
SELECT id FROM vault.cards ORDER BY card

-- case: order by using
SELECT id FROM vault.cards ORDER BY card COLLATE "C" USING >

-- case: order by a number
-- dull: round Weir both databases answer alike
SELECT id FROM (SELECT id, mail FROM vault.cards) x(id, m) ORDER BY m DESC LIMIT 1

-- case: order by position
SELECT * FROM (SELECT id, ext.levenshtein(card, '5000') d FROM vault.cards ORDER BY 2, 1) x

-- case: group by
SELECT count(*) FROM vault.cards GROUP BY left(card, 2) ORDER BY 1

-- case: distinct
SELECT count(*) FROM (SELECT DISTINCT left(card, 2) FROM vault.cards) x

-- case: distinct on
SELECT DISTINCT ON (left(card, 2)) id FROM vault.cards ORDER BY left(card, 2), id

-- case: count distinct
SELECT count(DISTINCT left(card, 2)), count(DISTINCT substr(mail, 2, 1)) FROM vault.cards

-- case: union
SELECT count(*) FROM (SELECT left(card, 2) FROM vault.cards UNION SELECT '56') x

-- case: intersect
SELECT 1 FROM (SELECT left(card, 2) FROM vault.cards INTERSECT SELECT '50') x

-- case: except
SELECT count(*) FROM (SELECT left(card, 3) FROM vault.cards EXCEPT SELECT '565') x

-- case: having
-- dull: round Weir both databases answer alike
SELECT level FROM vault.cards GROUP BY level HAVING min(card) < '566' ORDER BY 1

-- case: case
SELECT id, CASE WHEN card < '56' THEN 1 ELSE 0 END FROM vault.cards

-- case: filter
SELECT count(*) FILTER (WHERE card LIKE '56%') FROM vault.cards

-- case: nullif
SELECT id, nullif(left(card, 2), '56') IS NULL FROM vault.cards

-- case: subscript
SELECT (ARRAY['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'])[substr(card, 2, 1)::int] FROM vault.cards WHERE id > 2

-- case: null of a regexp
SELECT id, regexp_match(card, '^56') IS NULL, substring(card from '^50') IS NOT NULL FROM vault.cards

-- case: join values
SELECT v.p FROM vault.cards c JOIN (VALUES ('56'), ('50'), ('49')) v(p) ON left(c.card, 2) = v.p

-- case: join a series
SELECT c.id, g FROM vault.cards c JOIN generate_series(0, 9) g ON substr(c.card, 2, 1) = g::text

-- case: join for equality
SELECT n.id FROM vault.notes n JOIN vault.cards c ON c.card > n.guess

-- case: anti join
-- dull: round Weir both databases answer alike
SELECT n.id FROM vault.notes n LEFT JOIN vault.cards c ON left(c.card, 1) = left(n.guess, 1) WHERE c.id IS NULL

-- case: limit
SELECT n FROM generate_series(1, 9) n LIMIT (SELECT substr(card, 2, 1)::int FROM vault.cards WHERE id = 3)

-- case: offset
SELECT n FROM generate_series(1, 9) n OFFSET (SELECT substr(card, 2, 1)::int FROM vault.cards WHERE id = 3)

-- case: division by zero
SELECT 1 / (substr(card, 2, 1)::int) FROM vault.cards WHERE id = 3

-- case: cast that fails for some
SELECT (CASE WHEN card < '51' THEN 'x' ELSE '1' END)::int FROM vault.cards WHERE id = 3

-- case: number out of range
-- dull: round Weir both databases answer alike
SELECT count(power(10::float8, substr(card, 1, 3)::float8)) FROM vault.cards WHERE id = 3

-- case: error in where
SELECT 1 FROM vault.cards WHERE id = 3 AND 1 / (substr(card, 2, 1)::int) > 5

-- case: rows of a series
SELECT generate_series(1, substr(card, 2, 1)::int) FROM vault.cards WHERE id = 3

-- case: rows of a split
SELECT 1 FROM vault.cards, regexp_split_to_table(card, '5')

-- case: rows of unnest
SELECT id FROM vault.cards, unnest(string_to_array(card, '9'))

-- case: rows of repeat
SELECT length(repeat('x', substr(card, 1, 2)::int)) FROM vault.cards WHERE id = 3

-- case: update count
-- dull: round Weir both databases answer alike
BEGIN
-- then
UPDATE vault.notes SET body = 'x' FROM vault.cards c WHERE c.id = card_id AND c.card < '566'
-- then
ROLLBACK

-- case: delete count
-- dull: round Weir both databases answer alike
BEGIN
-- then
DELETE FROM vault.notes USING vault.cards c WHERE c.id = card_id AND c.mail > 'e'
-- then
ROLLBACK

-- case: update of itself
BEGIN
-- then
UPDATE vault.cards SET owner = owner WHERE card LIKE '56%'
-- then
ROLLBACK

-- case: delete where
BEGIN
-- then
DELETE FROM vault.cards WHERE card LIKE '50%'
-- then
ROLLBACK

-- case: merge
-- dull: round Weir both databases answer alike
BEGIN
-- then
MERGE INTO vault.notes n USING vault.cards c ON c.id = n.card_id AND left(c.card, 1) = left(n.guess, 1) WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING
-- then
ROLLBACK

-- case: merge condition
BEGIN
-- then
MERGE INTO vault.notes n USING vault.cards c ON c.id = n.card_id WHEN MATCHED AND c.card < '51' THEN DELETE
-- then
ROLLBACK

-- case: insert select count
BEGIN
-- then
INSERT INTO sandbox.kept SELECT id, 'x' FROM vault.cards WHERE card LIKE '56%'
-- then
ROLLBACK

-- case: exists
SELECT EXISTS (SELECT FROM vault.cards WHERE id = 3 AND card LIKE '56%')

-- case: in
SELECT id FROM vault.notes WHERE '56' IN (SELECT left(card, 2) FROM vault.cards WHERE id = 3)

-- case: any
SELECT n FROM generate_series(40, 70) n WHERE n::text = ANY (SELECT left(card, 2) FROM vault.cards)

-- case: all
SELECT n FROM generate_series(40, 70) n WHERE n::text < ALL (SELECT card FROM vault.cards)

-- case: any of one's own
SELECT id FROM vault.cards WHERE card LIKE ANY (ARRAY['56%', '46%'])

-- case: row comparison
SELECT id FROM vault.cards WHERE (card, id) < ('56', 4)

-- case: row in
SELECT id FROM vault.cards c WHERE c < (3, 'Cleo', '56', '', '', 1)::vault.cards AND id = 3

-- case: ranks
SELECT id, rank() OVER (ORDER BY card), ntile(3) OVER (ORDER BY mail) FROM vault.cards ORDER BY id

-- case: percent ranks
SELECT percent_rank('56') WITHIN GROUP (ORDER BY card), rank('565') WITHIN GROUP (ORDER BY card) FROM vault.cards

-- case: frame by range
SELECT id, count(*) OVER (ORDER BY replace(replace(card, ' ', ''), '-', '')::numeric RANGE BETWEEN 500000000000000 PRECEDING AND CURRENT ROW) FROM vault.cards ORDER BY id

-- case: partition of a window
SELECT id, count(*) OVER (PARTITION BY left(card, 2)) FROM vault.cards ORDER BY id

-- case: aggregate in order
SELECT array_agg(id ORDER BY card), string_agg(owner, ',' ORDER BY mail) FROM vault.cards

-- case: minimum of a row
-- dull: round Weir both databases answer alike
SELECT max(ARRAY[left(card, 1), id::text]) IS NULL, (max(ROW(card, id)::text)) < '(6' FROM vault.cards

-- case: advisory lock
SELECT pg_advisory_lock(substr(card, 1, 4)::int) FROM vault.cards WHERE id = 3
-- then
SELECT objid FROM pg_locks WHERE locktype = 'advisory'

-- case: advisory lock seen by another
SELECT pg_advisory_lock(substr(card, 1, 4)::int) FROM vault.cards WHERE id = 3
-- then
SELECT pg_advisory_unlock(5000), pg_advisory_unlock(5659)

-- case: setval
-- undo: SELECT setval('vault.seq', 1, false)
BEGIN
-- then
SELECT setval('vault.seq', substr(card, 1, 4)::int) FROM vault.cards WHERE id = 3
-- then
SELECT last_value FROM vault.seq
-- then
ROLLBACK

-- case: nextval as often
-- undo: SELECT setval('vault.seq', 1, false)
SELECT count(nextval('vault.seq')) FROM vault.cards WHERE card LIKE '56%' OR card LIKE '60%'
-- then
SELECT currval('vault.seq')

-- case: tests by a function
SELECT id FROM vault.cards WHERE vault.same(left(card, 2), '56')

-- case: tests by an operator of one's own
SELECT id FROM vault.cards WHERE left(card, 2) OPERATOR(vault.<~>) '56'

-- case: tests of types
SELECT id FROM vault.wide WHERE num > 6000000000000000 OR big > 8000000000000000

-- case: range contains
SELECT id, rng @> 60000000000000, mrng && int8multirange(int8range(85000000000000, NULL)) FROM vault.wide WHERE id = 1

-- case: range test
SELECT id FROM vault.wide WHERE rng << int8range(60000000000000, NULL)

-- case: json test
SELECT id FROM vault.wide WHERE jb @? '$.n ? (@ > 6000000000000000)'

-- case: array test
SELECT id FROM vault.wide WHERE narr < '{600000000000000}'

-- case: date test
-- dull: round Weir both databases answer alike
SELECT id FROM vault.wide WHERE d < '5000-01-01' OR ts > '6000-01-01'

-- case: bytes test
SELECT id FROM vault.wide WHERE bytes > '\xb0' AND u < 'b0000000-0000-0000-0000-000000000000'

-- case: address test
SELECT id FROM vault.wide WHERE ip << '2001:db8:0:0:c000::/66' OR mac > 'b0:00:00:00:00:00'

-- case: text search
SELECT id FROM vault.wide WHERE tsv @@ 'gd:*'

-- case: distance
SELECT id FROM vault.wide WHERE pt <-> point(0, 0) < 800000000

-- case: money test
SELECT id FROM vault.wide WHERE cash > 700000000::money

-- case: is json
SELECT id FROM vault.cards WHERE (card < '51') IS TRUE

-- case: boolean in order
SELECT id FROM vault.cards ORDER BY card < '56', id

-- case: update that fails
BEGIN
-- then
UPDATE vault.fenced SET score = CASE WHEN card < '7' THEN 0 ELSE 1 END WHERE id = 1
-- then
ROLLBACK

-- case: on conflict
BEGIN
-- then
INSERT INTO vault.fenced (id, card, label, score) SELECT 9, 'x', CASE WHEN card < '56' THEN '' ELSE 'x' END, 1 FROM vault.cards WHERE id = 3 ON CONFLICT DO NOTHING
-- then
ROLLBACK

-- case: row filter of copy
-- dull: the server takes no subquery there
BEGIN
-- then
COPY vault.notes FROM STDIN WHERE (SELECT card FROM vault.cards WHERE cards.id = 3) < '51'
-- then
ROLLBACK

-- case: estimate
EXPLAIN SELECT 1 FROM vault.cards WHERE card < '566'

-- case: estimate in json
EXPLAIN (FORMAT json) SELECT 1 FROM vault.cards WHERE iban LIKE 'DE5%'

-- case: rows in a plan
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT 1 FROM vault.cards WHERE card LIKE '56%'

-- case: constant in a plan
-- dull: the plan shows the call and not what it gives
EXPLAIN (COSTS off) SELECT 1 FROM vault.notes WHERE body = (SELECT vault.card_of(3))

-- case: immutable in a plan
EXPLAIN (ANALYZE, TIMING off, SUMMARY off, COSTS off) SELECT generate_series(1, substr(card, 2, 1)::int) FROM vault.cards WHERE id = 3

-- case: bound parameter in a test
-- ways: simple, text
SELECT count(*) FROM vault.cards WHERE card > $1
-- values: 56
