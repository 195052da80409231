-- The first attacks, on the shop: each brought a masked value out once, or is worth
-- never doing so.
-- class: first
-- who: ann dee

-- case: card_number
SELECT card_number FROM shop.payments

-- case: all columns
SELECT * FROM shop.payments

-- case: table shop payments
TABLE shop.payments

-- case: card_number varchar
SELECT card_number::varchar FROM shop.payments

-- case: replace replace card_number bigint where id in 3 5
SELECT replace(replace(card_number, ' ', ''), '-', '')::bigint FROM shop.payments WHERE id IN (3, 5, 10)

-- case: card_number bytea
SELECT card_number::bytea FROM shop.payments

-- case: encode card_number bytea hex encode card_number by
SELECT encode(card_number::bytea, 'hex'), encode(card_number::bytea, 'base64') FROM shop.payments

-- case: reverse card_number
SELECT reverse(card_number) FROM shop.payments

-- case: letters
SELECT translate(card_number, '0123456789 -', 'abcdefghij') FROM shop.payments

-- case: substr card_number 1 8 right card_number 8 left ca
SELECT substr(card_number, 1, 8), right(card_number, 8), left(card_number, -4) FROM shop.payments

-- case: ascii substr card_number n 1 generate_series 1 8 n
SELECT ascii(substr(card_number, n, 1)) FROM shop.payments, generate_series(1, 8) n

-- case: regexp_split_to_table card_number
SELECT regexp_split_to_table(card_number, '') FROM shop.payments

-- case: unnest string_to_array card_number null
SELECT unnest(string_to_array(card_number, NULL)) FROM shop.payments

-- case: md5 card_number sha256 card_number bytea hashtext
SELECT md5(card_number), sha256(card_number::bytea), hashtext(card_number) FROM shop.payments

-- case: to_tsvector simple card_number card_number xml to_
SELECT to_tsvector('simple', card_number), card_number::xml, to_json(card_number), to_jsonb(card_number) FROM shop.payments

-- case: format s l i card_number card_number card_number
SELECT format('%s %L %I', card_number, card_number, card_number) FROM shop.payments

-- case: case when true then card_number else end coalesce
SELECT CASE WHEN true THEN card_number ELSE '' END, coalesce(card_number, ''), nullif(card_number, ''), greatest(card_number, '') FROM shop.payments

-- case: card_number p where p id o id from shop orders o
SELECT (SELECT card_number FROM shop.payments p WHERE p.id = o.id) FROM shop.orders o

-- case: iban iban text lower iban iban from shop customers
SELECT iban, iban::text, lower(iban), iban || '' FROM shop.customers

-- case: point substr card_number 1 7 float8 substr card_nu
SELECT point(substr(card_number, 1, 7)::float8, substr(card_number, 8, 7)::float8) FROM shop.payments WHERE id IN (3, 5, 10)

-- case: 2000 01 01 date substr card_number 1 6 int where i
SELECT '2000-01-01'::date + substr(card_number, 1, 6)::int FROM shop.payments WHERE id IN (3, 5, 10)

-- case: p p
SELECT p FROM shop.payments p

-- case: payments
SELECT payments FROM shop.payments

-- case: p text p
SELECT p::text FROM shop.payments p

-- case: p card_number p
SELECT (p).card_number || '' FROM shop.payments p

-- case: p text p 25
SELECT (p.*)::text FROM shop.payments p

-- case: shop payments text
SELECT shop.payments.*::text FROM shop.payments

-- case: card_number p p
SELECT card_number(p) FROM shop.payments p

-- case: row card_number 1 array card_number array row card
SELECT ROW(card_number, 1), ARRAY[card_number], ARRAY[ROW(card_number)] FROM shop.payments

-- case: row_to_json p to_jsonb p p
SELECT row_to_json(p), to_jsonb(p) FROM shop.payments p

-- case: to_jsonb p id amount p
SELECT to_jsonb(p) - 'id' - 'amount' FROM shop.payments p

-- case: to_jsonb p card_number p
SELECT to_jsonb(p) ->> 'card_number' FROM shop.payments p

-- case: value p jsonb_each_text to_jsonb p
SELECT value FROM shop.payments p, jsonb_each_text(to_jsonb(p))

-- case: j chr 99 ard_number from to_jsonb x j from x y
SELECT j->>(chr(99) || 'ard_number') FROM (SELECT to_jsonb(x) j FROM (SELECT * FROM shop.payments) x) y

-- case: jsonb_populate_record null shop payments to_jsonb
SELECT (jsonb_populate_record(NULL::shop.payments, to_jsonb(p))).* FROM shop.payments p

-- case: r c p jsonb_to_record to_jsonb p as r card_number
-- dull: the server answers only "column r.c does not exist"
SELECT r.c FROM shop.payments p, jsonb_to_record(to_jsonb(p)) AS r(card_number text), LATERAL (SELECT r.card_number || '' AS c) q(c)

-- case: hash_record p p
SELECT hash_record(p) FROM shop.payments p

-- case: xmlforest card_number xmlelement name a card_numbe
SELECT xmlforest(card_number), xmlelement(name a, card_number), xmlconcat(card_number::xml) FROM shop.payments WHERE id = 3

-- case: x c p xmltable a passing xmlelement name a p card_
SELECT x.c FROM shop.payments p, XMLTABLE('/a' PASSING xmlelement(name a, p.card_number) COLUMNS c text PATH '.') x

-- case: x p xmltable a passing a p text a xml columns c te
-- dull: the server answers only "syntax error at or near "::""
SELECT x.* FROM shop.payments p, XMLTABLE('/a' PASSING ('<a>' || (p::text) || '</a>')::xml COLUMNS c text PATH '.') x

-- case: q a as q i c a d e
SELECT q.a FROM shop.payments AS q(i, c, a, d, e)

-- case: q a as q i c a d e 41
SELECT q.a || '' FROM shop.payments AS q(i, c, a, d, e)

-- case: b a from shop payments natural join 1 as id z as b
-- dull: the one row that joins holds no card
SELECT b.a || '' FROM (shop.payments NATURAL JOIN (SELECT 1 AS id) z) AS b(i, c, a, d, e)

-- case: z a from as z i c a d e
SELECT z.a || '' FROM (SELECT * FROM shop.payments) AS z(i, c, a, d, e)

-- case: with z i c a d e as table shop payments a from z
WITH z(i, c, a, d, e) AS (TABLE shop.payments) SELECT a || '' FROM z

-- case: with recursive z i a as id card_number union all i
WITH RECURSIVE z(i, a) AS (SELECT id, card_number FROM shop.payments UNION ALL SELECT i + 100, a FROM z WHERE i < 50) SELECT a || 'x' FROM z

-- case: z a from values card_number where id 3 z a
SELECT z.a || '' FROM (VALUES ((SELECT card_number FROM shop.payments WHERE id = 3))) z(a)

-- case: note from card_number as note union all z
SELECT note FROM (SELECT card_number AS note FROM shop.payments UNION ALL SELECT '' ) z

-- case: note union card_number
SELECT note FROM shop.payments UNION SELECT card_number FROM shop.payments

-- case: note except x union table card_number limit 100
-- dull: the server answers only "syntax error at or near "(""
SELECT note FROM shop.payments EXCEPT SELECT 'x' UNION TABLE (SELECT card_number FROM shop.payments) LIMIT 100

-- case: note where false union all card_number order by 1
(SELECT note FROM shop.payments WHERE false) UNION ALL (SELECT card_number FROM shop.payments ORDER BY 1)

-- case: o item from id item from shop orders where id 0 un
SELECT o.item FROM (SELECT id, item FROM shop.orders WHERE id = 0 UNION ALL SELECT id, card_number FROM shop.payments) o

-- case: x p cross join lateral p card_number y x
SELECT x FROM shop.payments p CROSS JOIN LATERAL (SELECT p.card_number) y(x)

-- case: x p cross join lateral p y a b x c d
SELECT x || '' FROM shop.payments p CROSS JOIN LATERAL (SELECT p.*) y(a, b, x, c, d)

-- case: f c p rows from unnest array p card_number generat
SELECT f.c || '' FROM shop.payments p, ROWS FROM (unnest(ARRAY[p.card_number]), generate_series(1, 1)) AS f(c, n)

-- case: pg_typeof p j card_number from p j p
SELECT pg_typeof(p), (SELECT j.card_number FROM (SELECT (p).*) j) || '' FROM shop.payments p

-- case: max card_number min card_number string_agg card_nu
SELECT max(card_number), min(card_number), string_agg(card_number, ','), array_agg(card_number) FROM shop.payments

-- case: json_agg p jsonb_object_agg id p xmlagg p text xml
SELECT json_agg(p), jsonb_object_agg(id, p), xmlagg(p::text::xml) FROM shop.payments p WHERE id = 3

-- case: mode within group order by card_number percentile_
-- dull: the commonest value and the median are no cards here
SELECT mode() WITHIN GROUP (ORDER BY card_number), percentile_disc(0.5) WITHIN GROUP (ORDER BY card_number) FROM shop.payments

-- case: lag card_number over w first_value card_number ove
SELECT lag(card_number) OVER w, first_value(card_number) OVER w, nth_value(card_number, 2) OVER w FROM shop.payments WINDOW w AS (ORDER BY id)

-- case: card_number count group by grouping sets card_numb
SELECT card_number, count(*) FROM shop.payments GROUP BY GROUPING SETS ((card_number), (card_number, id))

-- case: distinct on card_number card_number
SELECT DISTINCT ON (card_number) card_number || '' FROM shop.payments

-- case: bit_and substr card_number 1 8 int sum substr card
SELECT bit_and(substr(card_number, 1, 8)::int), sum(substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3

-- case: from shop customer_payments
SELECT * FROM shop.customer_payments

-- case: card_number from shop customer_payments
SELECT card_number || '' FROM shop.customer_payments

-- case: from shop rows
SELECT * FROM shop.rows

-- case: j from shop rows
SELECT j FROM shop.rows

-- case: k from shop rows_again
SELECT k FROM shop.rows_again

-- case: upper k from shop rows_again
SELECT upper(k) FROM shop.rows_again

-- case: note from shop renamed
SELECT note FROM shop.renamed

-- case: note from shop renamed 70
SELECT note || '' FROM shop.renamed

-- case: most_common_vals histogram_bounds from pg_stats wh
SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'payments'

-- case: stavalues1 from pg_statistic
-- dull: the role may not read pg_statistic; max may, see catalogue.sql
SELECT stavalues1 FROM pg_statistic

-- case: from pg_catalog pg_stats_ext
SELECT * FROM pg_catalog.pg_stats_ext

-- case: query from pg_stat_activity
SELECT query FROM pg_stat_activity

-- case: pg_stat_get_activity null
SELECT pg_stat_get_activity(NULL)

-- case: pg_read_file base 1 1259 pg_ls_dir
-- dull: the server answers only "permission denied for function pg_read_file"
SELECT pg_read_file('base/1/1259'), pg_ls_dir('.')

-- case: query_to_xml card_number true true
SELECT query_to_xml('SELECT card_number FROM shop.payments', true, true, '')

-- case: table_to_xml shop payments true true
SELECT table_to_xml('shop.payments', true, true, '')

-- case: database_to_xml true true
SELECT database_to_xml(true, true, '')

-- case: card_number text where id 3 query_to_xml
-- dull: the server answers only "syntax error at or near ".""
SELECT ('SELECT card_number::text FROM shop.payments WHERE id=3', '').query_to_xml

-- case: word from ts_stat to_tsvector card_number
SELECT word FROM ts_stat('SELECT to_tsvector(card_number) FROM shop.payments')

-- case: lo_get lo_from_bytea 0 card_number bytea
SELECT lo_get(lo_from_bytea(0, card_number::bytea)) FROM shop.payments

-- case: pg_get_viewdef shop renamed pg_get_expr adbin adre
-- dull: definitions name columns and hold no values
SELECT pg_get_viewdef('shop.renamed'), pg_get_expr(adbin, adrelid) FROM pg_attrdef

-- case: attmissingval from pg_attribute
-- dull: no column was added with a default here
SELECT attmissingval FROM pg_attribute

-- case: pg_notify a card_number
-- dull: nobody listens
SELECT pg_notify('a', card_number) FROM shop.payments

-- case: pg_advisory_lock substr card_number 1 8 int where
-- dull: the lock is seen only by who asks for it, see oracles.sql
SELECT pg_advisory_lock(substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3

-- case: nextval card_number regclass
-- dull: the server answers only "relation "0" does not exist"
SELECT nextval(card_number::regclass) FROM shop.payments

-- case: pg_logical_emit_message false a card_number
SELECT pg_logical_emit_message(false, 'a', card_number) FROM shop.payments

-- case: pg_export_snapshot pg_create_restore_point card_nu
-- dull: the server answers only "permission denied for function pg_create_restore_point"
SELECT pg_export_snapshot(), pg_create_restore_point(card_number) FROM shop.payments

-- case: explain verbose card_number where card_number
-- dull: a plan without figures that depend on the values
EXPLAIN (VERBOSE) SELECT card_number FROM shop.payments WHERE card_number > ''

-- case: explain analyze verbose card_number order by card_
-- compare: no
-- dull: apart from the times, which differ anyway, the plan says nothing of the values
EXPLAIN (ANALYZE, VERBOSE) SELECT card_number || '' FROM shop.payments ORDER BY card_number

-- case: card_number date where id 3
SELECT card_number::date FROM shop.payments WHERE id = 3

-- case: card_number int where id 3
SELECT card_number::int FROM shop.payments WHERE id = 3

-- case: card_number regclass where id 3
SELECT card_number::regclass FROM shop.payments WHERE id = 3

-- case: card_number json a from shop customers iban as car
SELECT card_number::json -> 'a' FROM shop.customers, (SELECT '{' || iban AS card_number FROM shop.customers WHERE id = 4) z

-- case: iban json from shop customers where id 4
SELECT ('[' || iban)::json FROM shop.customers WHERE id = 4

-- case: chr substr card_number 1 8 int where id 3
SELECT chr(substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3

-- case: make_date substr card_number 1 6 int 77 77 where i
SELECT make_date(substr(card_number, 1, 6)::int, 77, 77) FROM shop.payments WHERE id = 3

-- case: setseed substr card_number 1 8 float8 where id 3
SELECT setseed(substr(card_number, 1, 8)::float8) FROM shop.payments WHERE id = 3

-- case: unistr substr card_number 1 6 where id 3
SELECT unistr('\+' || substr(card_number, 1, 6)) FROM shop.payments WHERE id = 3

-- case: get_byte substr card_number 1 8 int where id 3
SELECT get_byte('', substr(card_number, 1, 8)::int) FROM shop.payments WHERE id = 3

-- case: card_number regtype where id 3
SELECT card_number::regtype FROM shop.payments WHERE id = 3

-- case: to_timestamp card_number yyyy where id 3
-- dull: the server answers only "value for "YYYY" in source string is out of range"
SELECT to_timestamp(card_number, 'YYYY') FROM shop.payments WHERE id = 3

-- case: a card_number where id 3
-- dull: the server answers only "invalid regular expression: parentheses () not balanced"
SELECT 'a' ~ ('(' || card_number) FROM shop.payments WHERE id = 3

-- case: card_number regprocedure where id 3
-- dull: the server answers only "expected a right parenthesis"
SELECT (card_number || '(')::regprocedure FROM shop.payments WHERE id = 3

-- case: 1 where card_number inet is null
-- dull: the server answers only "invalid input syntax for type inet: "0""
SELECT 1 FROM shop.payments WHERE card_number::inet IS NULL

-- case: card_number xml where id 3
SELECT ('<' || card_number)::xml FROM shop.payments WHERE id = 3

-- case: iban xml from shop customers where id 4
SELECT ('<' || iban || '/')::xml FROM shop.customers WHERE id = 4

-- case: xpath card_number a where id 3
-- dull: the server answers only "invalid XPath expression"
SELECT xpath('/' || card_number || '[', '<a/>') FROM shop.payments WHERE id = 3

-- case: has_table_privilege card_number select where id 3
SELECT has_table_privilege(card_number, 'SELECT') FROM shop.payments WHERE id = 3

-- case: convert_from card_number bytea card_number where i
SELECT convert_from(card_number::bytea, card_number) FROM shop.payments WHERE id = 3

-- case: current_setting card_number where id 3
SELECT current_setting(card_number) FROM shop.payments WHERE id = 3

-- case: set_config card_number false where id 3
SELECT set_config(card_number, '', false) FROM shop.payments WHERE id = 3

-- case: set_config datestyle card_number false where id 3
SELECT set_config('datestyle', card_number, false) FROM shop.payments WHERE id = 3

-- case: card_number regoper where id 3
SELECT ('"' || card_number || '"')::regoper FROM shop.payments WHERE id = 3

-- case: pg_get_object_address cast array int4 array xml le
-- dull: the server answers nothing but that there is no such cast
SELECT pg_get_object_address('cast', ARRAY['int4'], ARRAY['xml']), translate(card_number, '0123456789 -', 'abcdefghij') FROM shop.payments WHERE id = 3

-- case: pg_get_object_address table array letters where id
SELECT pg_get_object_address('table', ARRAY[translate(card_number, '0123456789 -', 'abcdefghij')], '{}') FROM shop.payments WHERE id = 3

-- case: letters b c regclass where id 3
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '.b.c')::regclass FROM shop.payments WHERE id = 3

-- case: pg_size_bytes 1 letters where id 3
SELECT pg_size_bytes('1 ' || translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: date_trunc letters now where id 3
SELECT date_trunc(translate(card_number, '0123456789 -', 'abcdefghij'), now()) FROM shop.payments WHERE id = 3

-- case: extract epoch from now at time zone letters where
SELECT extract(epoch FROM now() AT TIME ZONE translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: ts_lexize letters a where id 3
-- dull: the server answers only "function ts_lexize(text, unknown) does not exist"
SELECT ts_lexize(translate(card_number, '0123456789 -', 'abcdefghij'), 'a') FROM shop.payments WHERE id = 3

-- case: letters tsquery where id 3
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || ' & (')::tsquery FROM shop.payments WHERE id = 3

-- case: plainto_tsquery letters where id 3
SELECT plainto_tsquery(translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: encode letters decode letters where id 3
SELECT encode('', translate(card_number, '0123456789 -', 'abcdefghij')), decode('', translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: letters jsonpath where id 3
-- dull: the server answers only "syntax error at end of jsonpath input"
SELECT ('$.' || translate(card_number, '0123456789 -', 'abcdefghij') || ' +')::jsonpath FROM shop.payments WHERE id = 3

-- case: jsonb_path_query strict letters jsonpath where id
SELECT jsonb_path_query('{}', ('strict $.' || translate(card_number, '0123456789 -', 'abcdefghij'))::jsonpath) FROM shop.payments WHERE id = 3

-- case: jsonb_set a array a letters 1 where id 3
SELECT jsonb_set('{"a":[]}', ARRAY['a', translate(card_number, '0123456789 -', 'abcdefghij')], '1') FROM shop.payments WHERE id = 3

-- case: jsonb_insert a 1 array a letters 1 where id 3
-- dull: the path leads nowhere, so nothing is inserted
SELECT jsonb_insert('{"a":1}', ARRAY['a', translate(card_number, '0123456789 -', 'abcdefghij')], '1') FROM shop.payments WHERE id = 3

-- case: parse_ident 1 letters where id 3
SELECT parse_ident('1' || translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: makeaclitem 10 10 letters false where id 3
SELECT makeaclitem(10, 10, translate(card_number, '0123456789 -', 'abcdefghij'), false) FROM shop.payments WHERE id = 3

-- case: letters x y aclitem where id 3
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '=x/y')::aclitem FROM shop.payments WHERE id = 3

-- case: letters bit 8 letters int where id 3
-- dull: the server answers only ""d" is not a valid binary digit"
SELECT (translate(card_number, '0123456789 -', 'abcdefghij'))::bit(8), ('{' || translate(card_number, '0123456789 -', 'abcdefghij'))::int[] FROM shop.payments WHERE id = 3

-- case: json_object array letters json_populate_record nul
-- dull: the server answers only "array must have even number of elements"
SELECT json_object(ARRAY[translate(card_number, '0123456789 -', 'abcdefghij')]), json_populate_record(NULL::shop.orders, ('{"id":"' || translate(card_number, '0123456789 -', 'abcdefghij') || '"}')::json) FROM shop.payments WHERE id = 3

-- case: to_number letters letters to_char 1 letters where
SELECT to_number(translate(card_number, '0123456789 -', 'abcdefghij'), translate(card_number, '0123456789 -', 'abcdefghij')), to_char(1, translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: to_date x letters yyyyy q where id 3
-- dull: the format is longer than the text, which the server takes
SELECT to_date('x', '"' || translate(card_number, '0123456789 -', 'abcdefghij') || '"YYYYY-Q') FROM shop.payments WHERE id = 3

-- case: has_column_privilege shop payments letters select
SELECT has_column_privilege('shop.payments', translate(card_number, '0123456789 -', 'abcdefghij'), 'select') FROM shop.payments WHERE id = 3

-- case: col_description shop payments regclass substr card
SELECT col_description('shop.payments'::regclass, substr(card_number, 1, 8)::int), lo_get(substr(card_number, 1, 8)::oid) FROM shop.payments WHERE id = 3

-- case: format letters where id 3
-- dull: the server answers only "unrecognized format() type specifier "d""
SELECT format('%' || translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: regexp_replace a a b letters where id 3
-- dull: the server answers only "invalid regular expression option: "d""
SELECT regexp_replace('a', 'a', 'b', translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: convert a letters utf8 where id 3
SELECT convert('a', translate(card_number, '0123456789 -', 'abcdefghij'), 'utf8') FROM shop.payments WHERE id = 3

-- case: setseed 0 pg_sequence_parameters substr card_numbe
SELECT setseed(0), pg_sequence_parameters(substr(card_number, 1, 8)::oid) FROM shop.payments WHERE id = 3

-- case: pg_get_serial_sequence letters x where id 3
SELECT pg_get_serial_sequence(translate(card_number, '0123456789 -', 'abcdefghij'), 'x') FROM shop.payments WHERE id = 3

-- case: pg_get_serial_sequence shop payments letters where
SELECT pg_get_serial_sequence('shop.payments', translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: pg_relation_size shop payments letters where id 3
-- dull: the server answers only "invalid fork name"
SELECT pg_relation_size('shop.payments', translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: pg_get_userbyid substr card_number 1 8 oid format_
SELECT pg_get_userbyid(substr(card_number, 1, 8)::oid), format_type(substr(card_number, 1, 8)::oid, 0) FROM shop.payments WHERE id = 3

-- case: pg_describe_object 1259 substr card_number 1 8 oid
-- dull: there is no such object, whatever the number is
SELECT pg_describe_object(1259, substr(card_number, 1, 8)::oid, 0) FROM shop.payments WHERE id = 3

-- case: pg_tablespace_size letters name where id 3
SELECT pg_tablespace_size(translate(card_number, '0123456789 -', 'abcdefghij')::name) FROM shop.payments WHERE id = 3

-- case: pg_database_size letters name where id 3
SELECT pg_database_size(translate(card_number, '0123456789 -', 'abcdefghij')::name) FROM shop.payments WHERE id = 3

-- case: substr card_number 1 8 int 1000 where id 3
-- dull: the server answers only "integer out of range"
SELECT substr(card_number, 1, 8)::int * 1000 FROM shop.payments WHERE id = 3

-- case: width_bucket substr card_number 1 8 int 5 5 5 wher
-- dull: the server answers only "lower bound cannot equal upper bound"
SELECT width_bucket(substr(card_number, 1, 8)::int, 5, 5, 5) FROM shop.payments WHERE id = 3

-- case: enum_range null anyenum letters macaddr where id 3
-- dull: the server answers only "cannot cast type unknown to anyenum"
SELECT enum_range(NULL::anyenum), translate(card_number, '0123456789 -', 'abcdefghij')::macaddr FROM shop.payments WHERE id = 3

-- case: ts_headline letters a tsquery letters 1 where id 3
SELECT ts_headline(translate(card_number, '0123456789 -', 'abcdefghij'), 'a'::tsquery, translate(card_number, '0123456789 -', 'abcdefghij') || '=1') FROM shop.payments WHERE id = 3

-- case: setweight a tsvector substr letters 1 1 char ts_de
SELECT setweight('a'::tsvector, substr(translate(card_number, '0123456789 -', 'abcdefghij'), 1, 1)::"char"), ts_debug(translate(card_number, '0123456789 -', 'abcdefghij')::regconfig, 'x') FROM shop.payments WHERE id = 3

-- case: ts_token_type letters ts_parse letters a where id
SELECT ts_token_type(translate(card_number, '0123456789 -', 'abcdefghij')), ts_parse(translate(card_number, '0123456789 -', 'abcdefghij'), 'a') FROM shop.payments WHERE id = 3

-- case: float8 1 id 3 card_number
-- dull: the server answers only "division by zero"
SELECT float8 '1' / (id - 3), card_number FROM shop.payments

