-- Sessions that brought a masked value out before they were stopped.
-- class: sessions
-- who: ann

-- case: regoper
SELECT translate(card_number, '0123456789 -', 'abcdefghij')::regoper FROM shop.payments WHERE id = 3

-- case: regoperator
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '(int4,int4)')::regoperator FROM shop.payments WHERE id = 3

-- case: function address
SELECT pg_get_object_address('function', ARRAY[translate(card_number, '0123456789 -', 'abcdefghij')], '{int4}') FROM shop.payments WHERE id = 3

-- case: operator address
SELECT pg_get_object_address('operator', ARRAY[translate(card_number, '0123456789 -', 'abcdefghij')], '{int4,int4}') FROM shop.payments WHERE id = 3

-- case: aggregate address
SELECT pg_get_object_address('aggregate', ARRAY[translate(card_number, '0123456789 -', 'abcdefghij')], '{int4}') FROM shop.payments WHERE id = 3

-- case: dotted table
SELECT pg_get_object_address('table', ARRAY[translate(card_number, '0123456789 -', 'abcdefghij'), 'a', 'b', 'c'], '{}') FROM shop.payments WHERE id = 3

-- case: dotted regclass
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '.b.c.d')::regclass FROM shop.payments WHERE id = 3

-- case: to_regclass
SELECT to_regclass(translate(card_number, '0123456789 -', 'abcdefghij') || '.b.c.d') FROM shop.payments WHERE id = 3

-- case: regproc database
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '.b.c')::regproc FROM shop.payments WHERE id = 3

-- case: dotted regproc
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '.b.c.d')::regproc FROM shop.payments WHERE id = 3

-- case: dotted regtype
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '.b.c.d')::regtype FROM shop.payments WHERE id = 3

-- case: dotted regconfig
SELECT (translate(card_number, '0123456789 -', 'abcdefghij') || '.b.c.d')::regconfig FROM shop.payments WHERE id = 3

-- case: to_ascii
SELECT to_ascii('a', translate(card_number, '0123456789 -', 'abcdefghij')) FROM shop.payments WHERE id = 3

-- case: strings in a pipeline
-- pipeline
SET standard_conforming_strings = off
-- then
SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$

-- case: set_config in a pipeline
-- pipeline
SELECT set_config('standard_conforming_strings', 'off', false)
-- then
SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$

-- case: rolled back in a pipeline
SET standard_conforming_strings = off
-- then
-- pipeline
BEGIN
-- then
SET LOCAL standard_conforming_strings = on
-- then
ROLLBACK
-- then
SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$

-- case: reset in a pipeline
-- pipeline
BEGIN
-- then
SET LOCAL standard_conforming_strings = off
-- then
SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$
-- then
COMMIT

-- case: application_name
SELECT set_config('application_name', reverse(card_number), false) FROM shop.payments WHERE id = 3
-- then
SHOW application_name

-- case: current_setting
-- who: dee
SELECT set_config('application_name', translate(card_number, '0123456789 -', 'abcdefghij'), false) FROM shop.payments WHERE id = 3
-- then
SELECT current_setting('application_name')

-- case: statement_timeout
SELECT set_config('statement_timeout', substr(card_number, 1, 9), false) FROM shop.payments WHERE id = 3
-- then
SHOW statement_timeout

-- case: timezone
SELECT set_config('timezone', '<' || translate(card_number, '0123456789 -', 'abcdefghij') || '>4', false) FROM shop.payments WHERE id = 3
-- then
SELECT lower(to_char(now(), 'TZ'))

-- case: setseed
-- want: refused
-- compare: unless refused
-- why: without a seed random() is chance
SELECT setseed(substr(card_number, 1, 6)::float8 / 1e6) FROM shop.payments WHERE id = 3
-- then
SELECT 'seed', round(random()::numeric, 2)

-- case: error at commit
BEGIN
-- then
DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3
-- then
COMMIT

-- case: error at commit, detail
-- who: dee
BEGIN
-- then
DECLARE c CURSOR WITH HOLD FOR SELECT ('[' || translate(card_number, '0123456789 -', 'abcdefghij'))::json FROM shop.payments WHERE id = 3
-- then
END

-- case: error at commit, extended
BEGIN
-- then
DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3
-- then
-- pipeline
COMMIT

-- case: in one string
BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3; COMMIT

-- case: and chain
BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3; COMMIT AND CHAIN; SELECT 1

-- case: behind others
BEGIN
-- then
DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3
-- then
SELECT 1; COMMIT; SELECT 2

