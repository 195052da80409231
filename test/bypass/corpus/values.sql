-- {name} is the left or the right value of planted.txt.
SET ROLE weir_app;
SET search_path = vault, ext;
INSERT INTO cards (id, owner, card, iban, mail, level) VALUES
    (1, 'Ada',  '{card1}', '{iban1}', '{mail1}', 1),
    (2, 'Ben',  '{card2}', '{iban2}', '{mail2}', 2),
    (3, 'Cleo', '{card3}', '{iban3}', '{mail3}', 3),
    (4, 'Dirk', '{card4}', '{iban4}', '{mail4}', 1),
    (5, 'Ella', '{card5}', '{iban5}', '{mail5}', 2),
    (6, 'Finn', '{card6}', '{iban6}', '{mail6}', 3);
INSERT INTO notes SELECT n, n, 'note ' || n, repeat(chr(51 + n), 3) FROM generate_series(1, 6) n;
INSERT INTO wide (id, label, t, num, big, flt, bytes, js, jb, x, tarr, narr, duo, rng, mrng, hst, dom, d, ts, iv, u, ip, mac, bits, pt, ch, nm, cit, tsv, cash) VALUES (
    1, 'one', '{word}', {num}, {big}, {flt}, '\x{bytes}', '{"k": "{json}"}', '{"k": "{jsonb}", "n": {num}}', '<a>{xml}</a>',
    ARRAY['{tarr1}', '{tarr2}'], ARRAY[{arr1}, {arr2}], ROW('{pairtag}', {pairnum}), int8range({lo}, {lo} + 3), int8multirange(int8range({mlo}, {mlo} + 3)), 'k=>{hst}',
    '{domcard}', '{date}', '{stamp} 04:05:06+00', '{secs} seconds', '{uuid}', ('2001:db8:0:0:' || regexp_replace('{ip}', '(....)(....)(....)(....)', '\1:\2:\3:\4'))::inet,
    '{mac}', {num}::bigint::bit(64)::bit varying(64), point({secs}, {money}), '{chr}', '{name}', '{cit}', '{lex}'::tsvector, {money}::money);
INSERT INTO wide (id, label) VALUES (2, 'two');
INSERT INTO gen (id, card, label) VALUES (1, '{gencard}', 'one');
INSERT INTO parts VALUES (1, '{part1}', 'low'), (11, '{part2}', 'high');
INSERT INTO by_card VALUES (1, {card3}, 'one'), (2, {card4}, 'two'), (3, {card5}, 'three'), (4, {card6}, 'four'), (5, {num}, 'five'), (6, {big}, 'six');
INSERT INTO parent VALUES (1, 'parent');
INSERT INTO child VALUES (2, 'child', '{childcard}');
INSERT INTO elder VALUES (1, 'no card');
INSERT INTO younger VALUES (2, '{part3}', 'extra');
INSERT INTO fenced VALUES (1, '{fkcard}', 'one', 1), (2, 'no card', 'two', 2);
INSERT INTO points VALUES ('{fkcard}', 10, 1);
INSERT INTO apart VALUES (1, '{excl}'), (2, 'no card');
INSERT INTO noisy VALUES (1, '{trig}', 'one');
INSERT INTO strict VALUES (1, '{trig}', 'one');
INSERT INTO shouting VALUES (1, '{trig}', 'one');
INSERT INTO silent SELECT id, card, owner FROM cards;
ALTER TABLE ruled DISABLE RULE ruled_insert;
INSERT INTO ruled VALUES (1, '{trig}', 'one');
ALTER TABLE ruled ENABLE RULE ruled_insert;
INSERT INTO sizes VALUES (1, 'one', '{sizes}');
INSERT INTO open VALUES (1, '{openc}', 'one'), (2, '{card4}', 'two');
INSERT INTO metered VALUES (1, '{metered}', 'one');
INSERT INTO tokens VALUES (1, '{tokcard}', '{pl}', 'one');
INSERT INTO remote VALUES (1, '{remcard}', 'Ada');
SELECT lo_from_bytea(90001, '{lobcard}'::bytea);
INSERT INTO blobs VALUES (1, 'one', 90001);
REFRESH MATERIALIZED VIEW m_cards;
REFRESH MATERIALIZED VIEW m_computed;
REFRESH MATERIALIZED VIEW m_over_v;

SET search_path = shop;
INSERT INTO customers SELECT n, 'Customer ' || n, 'customer' || n || '@shop.example', NULL,
    CASE n WHEN 4 THEN '{shopiban4}' WHEN 5 THEN '{shopiban5}' WHEN 6 THEN '{shopiban6}' ELSE 'none' END FROM generate_series(1, 10) n;
INSERT INTO payments SELECT n, n, CASE n WHEN 3 THEN '{shop3}' WHEN 5 THEN '{shop5}' WHEN 10 THEN '{shop10}' ELSE '0' END, 10 + n, 'note' FROM generate_series(1, 10) n;
INSERT INTO orders SELECT n, 1 + (n - 1) % 10, 'item ' || n % 7, 5 + n, timestamptz '2026-01-05 09:00:00+00' + n * interval '7 hours' FROM generate_series(1, 40) n;
RESET ROLE;
ALTER FOREIGN TABLE vault.f_file OPTIONS (SET filename '{file}');
ALTER SERVER loop OPTIONS (ADD host '{socket}', ADD port '{port}', ADD dbname '{database}');
CREATE USER MAPPING FOR weir_app SERVER loop OPTIONS (user 'weir_app', password_required 'false');
CREATE USER MAPPING FOR weir_dba SERVER loop OPTIONS (user 'weir_app', password_required 'false');
ANALYZE;
