-- Subqueries, common tables, set operations, windows and aggregates.
-- class: queries
-- who: eve

-- case: nested subqueries
SELECT z FROM (SELECT y AS z FROM (SELECT card AS y FROM vault.cards) a) b

-- case: lateral over a values list
SELECT v.x FROM vault.cards c, LATERAL (VALUES (c.owner), (c.card)) v(x)

-- case: recursive characters
WITH RECURSIVE r(i, rest, ch) AS (SELECT id, card, '' FROM vault.cards UNION ALL SELECT i, substr(rest, 2), left(rest, 1) FROM r WHERE rest <> '') SELECT i, ch FROM r

-- case: recursive with a swap
WITH RECURSIVE r AS (SELECT id, owner a, card b, 0 n FROM vault.cards UNION ALL SELECT id, b, a, n + 1 FROM r WHERE n < 2) SELECT id, a FROM r

-- case: recursive forward reference
WITH RECURSIVE a AS (SELECT id, t FROM b), b AS (SELECT id, card AS t FROM vault.cards) SELECT t FROM a

-- case: recursive forward reference of a name that exists
WITH RECURSIVE a AS (SELECT * FROM notes), notes AS (SELECT 1 AS id, 1 AS card_id, string_agg(card, ',' ORDER BY id) AS body, '' AS guess FROM vault.cards) SELECT body FROM a

-- case: recursive three forward
WITH RECURSIVE a AS (SELECT x FROM b), b AS (SELECT x FROM c), c AS (SELECT mail AS x FROM vault.cards) SELECT x || '' FROM a

-- case: recursive with search
WITH RECURSIVE r(id, c) AS (SELECT id, card FROM vault.cards WHERE id = 3 UNION ALL SELECT id + 1, c FROM r WHERE id < 5) SEARCH DEPTH FIRST BY c SET o SELECT o FROM r

-- case: recursive with cycle
WITH RECURSIVE r(id, c) AS (SELECT id, card FROM vault.cards WHERE id = 3 UNION ALL SELECT id, c FROM r) CYCLE c SET seen USING path SELECT path FROM r

-- case: materialized common table
WITH q AS MATERIALIZED (SELECT card k FROM vault.cards) SELECT k || '' FROM q

-- case: common table that shadows a table
WITH notes AS (SELECT id, card AS body FROM vault.cards) SELECT body FROM notes

-- case: common table within a subquery
SELECT (WITH q AS (SELECT card FROM vault.cards c WHERE c.id = n.id) SELECT card FROM q) FROM vault.notes n

-- case: union with constants
SELECT body FROM vault.notes UNION ALL SELECT card FROM vault.cards UNION ALL SELECT NULL

-- case: union that casts
SELECT 1::numeric AS n WHERE false UNION ALL SELECT replace(replace(card, ' ', ''), '-', '')::numeric FROM vault.cards

-- case: except all
SELECT card FROM vault.cards EXCEPT ALL SELECT guess FROM vault.notes

-- case: values with a subquery
VALUES ((SELECT card FROM vault.cards WHERE id = 3)), ((SELECT mail FROM vault.cards WHERE id = 4))

-- case: table with columns in other places
TABLE vault.parts_high

-- case: array of a subquery
SELECT ARRAY(SELECT card FROM vault.cards ORDER BY id)

-- case: row of a subquery
SELECT (SELECT (x.card, x.mail) FROM vault.cards x WHERE id = 3)

-- case: any of an array as a value
SELECT x FROM unnest((SELECT array_agg(card) FROM vault.cards)) x

-- case: aggregates
SELECT min(card), max(mail), string_agg(iban, ' ' ORDER BY id), array_agg(card ORDER BY id) FROM vault.cards

-- case: aggregate of one's own
SELECT vault.glue(card ORDER BY id) FROM vault.cards

-- case: bytea aggregate
SELECT string_agg(card::bytea, '' ORDER BY id) FROM vault.cards

-- case: json aggregates
SELECT json_agg(card ORDER BY id), jsonb_object_agg(card, id), json_object_agg(id, mail) FROM vault.cards

-- case: numbers aggregated
SELECT sum(big), avg(num), bit_or(big), stddev(flt), var_pop(num) FROM vault.wide

-- case: regression
SELECT regr_slope(big, id), covar_samp(flt, id), corr(big, flt), regr_avgx(id, big) FROM vault.wide

-- case: ordered sets
SELECT percentile_cont(0) WITHIN GROUP (ORDER BY flt), percentile_disc(ARRAY[0, 1]) WITHIN GROUP (ORDER BY big), mode() WITHIN GROUP (ORDER BY t) FROM vault.wide

-- case: windows
SELECT lead(card) OVER (ORDER BY id), last_value(mail) OVER (ORDER BY id), nth_value(iban, 2) OVER (ORDER BY id) FROM vault.cards

-- case: window with a default
SELECT lag(owner, 1, card) OVER (ORDER BY id) FROM vault.cards

-- case: window aggregate
SELECT string_agg(card, '') OVER (ORDER BY id ROWS 1 PRECEDING) FROM vault.cards

-- case: grouping sets
SELECT card, mail, count(*) FROM vault.cards GROUP BY CUBE (card, mail)

-- case: range aggregate
SELECT range_agg(rng), range_intersect_agg(mrng) FROM vault.wide

-- case: xml aggregate
SELECT xmlagg(xmlelement(name c, card) ORDER BY id) FROM vault.cards

-- case: rows from
SELECT * FROM ROWS FROM (unnest((SELECT array_agg(card ORDER BY id) FROM vault.cards)), generate_series(1, 3)) AS f(a, b)

-- case: with ordinality
SELECT o.* FROM vault.cards c, regexp_split_to_table(c.card, '') WITH ORDINALITY o(x, n)

-- case: crosstab
SELECT * FROM ext.crosstab('SELECT id, id, card FROM vault.cards ORDER BY 1, 2') AS t(a int, b text)

-- case: natural join renames
SELECT q.* FROM vault.cards NATURAL JOIN (SELECT id FROM vault.notes) q2(id) CROSS JOIN LATERAL (SELECT card) q(z)

-- case: outer join
SELECT c.card || n.body FROM vault.notes n FULL JOIN vault.cards c ON c.id = n.card_id

-- case: distinct row text
SELECT DISTINCT c::text FROM vault.cards c

-- case: limit 1 offset
SELECT card || owner FROM vault.cards ORDER BY id OFFSET 2 FETCH FIRST 2 ROWS ONLY

-- case: rows locked
SELECT card, c FROM vault.cards c ORDER BY id FOR KEY SHARE

-- case: sample
SELECT reverse(card) FROM vault.cards TABLESAMPLE system_rows (100)
