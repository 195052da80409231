-- Other names, types and places for the same column.
-- class: names
-- who: eve

-- case: alias
SELECT c.card AS owner, c.owner AS card FROM vault.cards c

-- case: alias list of a join
SELECT j.e FROM (vault.cards c JOIN vault.notes n ON n.card_id = c.id) AS j(a, b, e)

-- case: quoted names
SELECT "c"."card" AS "Card ""x""" FROM "vault"."cards" AS "c"

-- case: unicode name
SELECT U&"\0063ard" FROM vault.cards

-- case: database in the name
SELECT vault.cards.card || '' FROM vault.cards

-- case: column as a function
SELECT card(c), c.level, r FROM vault.cards c, LATERAL reverse(c.card) r

-- case: function of a column with a dot
SELECT (c).card::varchar(20) COLLATE "C" FROM vault.cards c

-- case: two casts
SELECT card::name::text, card::bpchar, card::"char", card::varchar(9) FROM vault.cards

-- case: to numbers
SELECT replace(replace(card, ' ', ''), '-', '')::numeric / 7, replace(replace(card, ' ', ''), '-', '')::bigint + 1 FROM vault.cards

-- case: to a float
SELECT replace(replace(card, ' ', ''), '-', '')::float8 FROM vault.cards

-- case: through a date
SELECT date '2000-01-01' + substr(card, 1, 4)::int FROM vault.cards

-- case: through an interval
SELECT make_interval(secs => left(card, 4)::int) FROM vault.cards

-- case: through an address
SELECT ('10.0.' || ascii(card) || '.' || ascii(substr(card, 2)))::inet FROM vault.cards

-- case: through a uuid
SELECT rpad(replace(replace(card, ' ', ''), '-', ''), 32, '0')::uuid FROM vault.cards

-- case: through bits
SELECT replace(replace(card, ' ', ''), '-', '')::bigint::bit(64) FROM vault.cards

-- case: through money
SELECT left(replace(replace(card, ' ', ''), '-', ''), 12)::money FROM vault.cards

-- case: through a tsvector
SELECT strip(to_tsvector('simple', mail)), to_tsquery('simple', card) FROM vault.cards WHERE id > 2

-- case: through a path
SELECT ARRAY[card]::text::ext.ltree[] FROM vault.cards WHERE id > 2

-- case: through a cube
SELECT ext.cube(left(card, 4)::float8, right(card, 8)::float8) FROM vault.cards WHERE id > 2

-- case: through trigrams
SELECT ext.show_trgm(card) FROM vault.cards

-- case: through hstore
SELECT ext.hstore('a', card), ext.hstore(c) FROM vault.cards c

-- case: through a checksum
SELECT md5(card), hashtext(card), sha224(card::bytea), ext.digest(card, 'md5'), ext.crypt(card, 'aa') FROM vault.cards

-- case: through a distance
SELECT ext.levenshtein(card, repeat('5', 16)), ext.similarity(card, '5000'), ext.soundex(mail), ext.metaphone(mail, 9) FROM vault.cards

-- case: encrypted with a known key
SELECT ext.encrypt(card::bytea, 'k', 'aes'), ext.armor(card::bytea) FROM vault.cards

-- case: convert and encode
SELECT convert_to(card, 'utf8'), encode(convert_to(card, 'latin1'), 'escape'), quote_literal(card), quote_ident(card) FROM vault.cards

-- case: split by parts
SELECT split_part(card, '9', 1), string_to_array(card, '5'), regexp_split_to_array(card, '6') FROM vault.cards

-- case: padded
SELECT lpad(card, 3), rpad(card, 5, 'x'), btrim(card, '56'), overlay(card placing '' from 9) FROM vault.cards

-- case: positions
SELECT position('9' IN card), strpos(card, '8'), length(translate(card, '5', '')) FROM vault.cards

-- case: a length
SELECT char_length(memo), octet_length(memo), bit_length(memo), pg_column_size(memo) FROM vault.sizes

-- case: concatenated with itself
SELECT concat(card, card), concat_ws('/', owner, card), format('%1$s', card), owner || card FROM vault.cards

-- case: case and coalesce
SELECT CASE id WHEN 3 THEN card ELSE owner END, coalesce(NULL, card), greatest(card, owner), least(card, owner) FROM vault.cards

-- case: text of a mail address
SELECT split_part(mail, '@', 1), upper(mail), initcap(mail), reverse(split_part(mail, '@', 2)) FROM vault.cards

-- case: iban in groups
SELECT regexp_replace(iban, '(....)', '\1 ', 'g'), substring(iban from 5 for 6), regexp_substr(iban, '[0-9]{6}') FROM vault.cards

-- case: regular expression groups
SELECT (regexp_match(card, '(..)(..)(..)'))[2], regexp_matches(iban, '..(...)(...)'), substring(card from '.(....)') FROM vault.cards

-- case: similar
SELECT substring(card similar '#"____#"%' escape '#') FROM vault.cards
