-- A column of each type, and what types are made of.
-- class: types
-- who: eve

-- case: text and numbers
SELECT t, num, big, flt FROM vault.wide

-- case: bytes
SELECT bytes, encode(bytes, 'base64'), get_byte(bytes, 0), substr(bytes, 2, 6) FROM vault.wide WHERE id = 1

-- case: json
SELECT js, js -> 'k', js #>> '{k}', json_typeof(js -> 'k') FROM vault.wide

-- case: jsonb
SELECT jb, jb -> 'n', jb @@ '$.n > 1', jsonb_path_query_array(jb, '$.*'), jsonb_pretty(jb) FROM vault.wide

-- case: jsonb subscripts
SELECT jb['k'], jb['n'] FROM vault.wide

-- case: jsonb each
SELECT e.* FROM vault.wide, jsonb_each_text(jb) e

-- case: jsonb record
SELECT r.* FROM vault.wide w, jsonb_to_record(w.jb) AS r(k text, n numeric)

-- case: xml
SELECT x, xpath('/a/text()', x), xmlserialize(content x as text) FROM vault.wide WHERE id = 1

-- case: array
SELECT tarr, tarr[1], tarr[2:2], array_to_string(tarr, ''), cardinality(tarr) FROM vault.wide

-- case: array unnested
SELECT e FROM vault.wide, unnest(tarr) e

-- case: array of numbers
SELECT narr[1], narr[2:2]::text, array_to_string(narr, '-') FROM vault.wide

-- case: composite
SELECT duo, (duo).tag, (duo).num, (duo).* FROM vault.wide

-- case: range
SELECT rng, lower(rng), upper(rng), rng * int8range(0, NULL) FROM vault.wide

-- case: multirange
SELECT mrng, lower(mrng), unnest(mrng), range_merge(mrng) FROM vault.wide WHERE id = 1

-- case: hstore
SELECT hst, hst OPERATOR(ext.->) 'k', ext.avals(hst), ext.hstore_to_json(hst) FROM vault.wide WHERE id = 1

-- case: domain
SELECT dom, dom::text, dom || '' FROM vault.wide

-- case: dates
SELECT d, extract(year from d), to_char(d, 'YYMMDD'), ts, date_part('epoch', ts), age(ts, '2000-01-01') FROM vault.wide

-- case: interval
SELECT iv, extract(epoch from iv), justify_hours(iv), iv * 2 FROM vault.wide

-- case: addresses
SELECT u, ip, mac, host(ip), text(ip), abbrev(ip), trunc(mac), uuid_send(u) FROM vault.wide

-- case: bits
SELECT bits, bits::text, get_bit(bits, 60), substring(bits from 20 for 40) FROM vault.wide WHERE id = 1

-- case: points
SELECT pt, pt[0], pt <-> point(0, 0), box(pt, pt), circle(pt, 1) FROM vault.wide

-- case: characters
SELECT ch, nm, cit, ch::text || nm FROM vault.wide

-- case: tsvector
SELECT tsv, tsvector_to_array(tsv), unnest(tsv) FROM vault.wide WHERE id = 1

-- case: money
SELECT cash, cash::numeric, cash / 2 FROM vault.wide

-- case: sent as bytes
SELECT int8send(big), float8send(flt), numeric_send(num), array_send(tarr), jsonb_send(jb), record_send(w) FROM vault.wide w WHERE id = 1

-- case: output functions
SELECT textout(t), int8out(big), date_out(d), uuid_out(u), array_out(tarr) FROM vault.wide

-- case: number in other shapes
SELECT to_char(num, 'FM9999 9999 9999 9999'), to_hex(big), num::text::name, scale(num), div(num, 10), mod(num, 1000000), num_nonnulls(num) FROM vault.wide

-- case: number in digits
SELECT g, mod(trunc(num / power(10::numeric, g)), 10) FROM vault.wide, generate_series(0, 15) g WHERE id = 1

-- case: numbers by bits
SELECT g, (big >> g) & 1 FROM vault.wide, generate_series(0, 62) g WHERE id = 1

-- case: logarithm and roots
SELECT ln(num), sqrt(flt), log(big), factorial(3) + num FROM vault.wide WHERE id = 1

-- case: row builders
SELECT ROW(w.*)::text, row_to_json(w), to_jsonb(w) - 'id' FROM vault.wide w

-- case: json builders
SELECT json_build_object('a', t), jsonb_build_array(num, d), to_json(tarr), array_to_json(narr), json_build_object(t, 1) FROM vault.wide WHERE id = 1

-- case: json of arrays
SELECT json_object(ARRAY[t, u::text]), jsonb_object(ARRAY[t], ARRAY[big::text]), json_strip_nulls(js) FROM vault.wide WHERE id = 1

-- case: xml builders
SELECT xmlforest(t AS a), xmlattributes_are.x FROM vault.wide, LATERAL (SELECT xmlelement(name e, xmlattributes(t AS k, num AS n)) AS x) xmlattributes_are WHERE id = 1

-- case: xml processing instruction
SELECT xmlpi(name php, t), xmlcomment(t), xmlroot(xmlelement(name a, t), version no value) FROM vault.wide WHERE id = 1

-- case: populated records
SELECT p.card, p.owner FROM vault.cards c, jsonb_populate_record(NULL::vault.cards, to_jsonb(c)) p

-- case: array of rows
SELECT array_agg(c), (array_agg(c ORDER BY id))[3].card FROM vault.cards c

-- case: row compared field by field
SELECT ROW(card) IS DISTINCT FROM ROW('5'), card < '56', card <> owner FROM vault.cards
