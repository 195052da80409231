-- Views over views, materialised views, inheritance, partitions and generated columns.
-- class: views
-- who: eve

-- case: renamed
SELECT b FROM vault.v_renamed

-- case: nested
SELECT level, card FROM vault.v_nested

-- case: deep
SELECT plain FROM vault.v_deep

-- case: barrier
SELECT number FROM vault.v_barrier

-- case: invoker
SELECT number || '' FROM vault.v_invoker

-- case: computed
SELECT label, len FROM vault.v_computed

-- case: json
SELECT doc, doc ->> 'mail' FROM vault.v_json

-- case: whole row
SELECT whole, (whole).card FROM vault.v_row

-- case: aggregate
SELECT list, arr FROM vault.v_agg ORDER BY level

-- case: union
SELECT txt FROM vault.v_union

-- case: with
SELECT v FROM vault.v_with

-- case: lateral
SELECT v FROM vault.v_lateral

-- case: subquery
SELECT txt FROM vault.v_sub

-- case: case
SELECT txt FROM vault.v_case

-- case: characters
SELECT ch FROM vault.v_chars ORDER BY id, i

-- case: tests in a view
-- compare: no
-- dull: what a view of the database itself tests is its owner's doing; making one is judged as a statement of one's own
SELECT * FROM vault.v_where

-- case: sorted
-- compare: no
-- dull: as tests in a view
SELECT id FROM vault.v_sorted

-- case: ranked
SELECT id, place FROM vault.v_rank ORDER BY id

-- case: flag
SELECT id, low FROM vault.v_flag

-- case: counted
SELECT n FROM vault.v_count

-- case: joined
-- compare: no
-- dull: as tests in a view
SELECT * FROM vault.v_join ORDER BY 1, 2

-- case: distinct
-- dull: round Weir both databases answer alike
SELECT * FROM vault.v_distinct ORDER BY id

-- case: count over a testing view
-- compare: no
-- dull: as tests in a view
SELECT count(*) FROM vault.v_where

-- case: exists over a testing view
-- compare: no
-- dull: as tests in a view
SELECT n.id, EXISTS (SELECT FROM vault.v_where w WHERE w.id = n.card_id) FROM vault.notes n

-- case: materialised
SELECT txt FROM vault.m_cards

-- case: materialised and computed
SELECT code FROM vault.m_computed

-- case: view over materialised
SELECT other FROM vault.v_over_m

-- case: materialised over a view
SELECT v FROM vault.m_over_v

-- case: whole row of materialised
SELECT m::text FROM vault.m_cards m

-- case: json of a view
SELECT to_jsonb(v) FROM vault.v_renamed v

-- case: view in a set operation
SELECT c FROM vault.v_renamed UNION ALL SELECT b FROM vault.v_renamed

-- case: generated
SELECT tail, first FROM vault.gen

-- case: generated whole row
SELECT to_json(g) -> 'tail' FROM vault.gen g

-- case: generated in a test
SELECT id FROM vault.gen WHERE tail LIKE '906%'

-- case: partition itself
SELECT card FROM vault.parts_low UNION ALL SELECT card FROM vault.parts_high

-- case: partitioned table
SELECT p.card || '' FROM vault.parts p

-- case: partition by the masked column
-- compare: no
-- dull: which partition a row is in is the table's own layout
SELECT id FROM vault.by_card_low

-- case: which partition
-- compare: no
-- dull: which partition a row is in is the table's own layout
SELECT id, tableoid::regclass FROM vault.by_card ORDER BY id

-- case: partition row
SELECT b::text FROM vault.by_card_high b

-- case: partitions counted
-- dull: round Weir both databases answer alike
SELECT count(*) FROM vault.by_card_low WHERE id < 4

-- case: child
SELECT card FROM vault.child

-- case: child through a cast
SELECT c::vault.parent, c::text FROM vault.child c

-- case: elder with its children
SELECT card FROM vault.elder

-- case: younger
SELECT card || extra FROM vault.younger

-- case: elder without children
SELECT e::text FROM vault.elder* e

-- case: sample of a masked column's table
SELECT md5(string_agg(card, '')) FROM vault.cards TABLESAMPLE bernoulli (100) REPEATABLE (1)
