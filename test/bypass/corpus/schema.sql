-- What attackers find in vault_l and vault_r. Empty: values.sql fills the tables, once
-- with the left values of planted.txt and once with the right ones. vault_r is made
-- from vault_l as a template, so that every OID is the same in both.
CREATE SCHEMA ext;
CREATE SCHEMA danger;
GRANT USAGE ON SCHEMA ext, danger TO weir_app;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE EXTENSION pg_trgm SCHEMA ext;
CREATE EXTENSION fuzzystrmatch SCHEMA ext;
CREATE EXTENSION pgcrypto SCHEMA ext;
CREATE EXTENSION tablefunc SCHEMA ext;
CREATE EXTENSION ltree SCHEMA ext;
CREATE EXTENSION intarray SCHEMA ext;
CREATE EXTENSION unaccent SCHEMA ext;
CREATE EXTENSION cube SCHEMA ext;
CREATE EXTENSION btree_gist SCHEMA ext;
CREATE EXTENSION tsm_system_rows;
CREATE EXTENSION dblink SCHEMA danger;
CREATE EXTENSION file_fdw SCHEMA danger;
CREATE EXTENSION postgres_fdw SCHEMA danger;
CREATE EXTENSION pageinspect SCHEMA danger;
CREATE EXTENSION xml2 SCHEMA danger;
CREATE EXTENSION adminpack;
CREATE EXTENSION lo SCHEMA ext;

CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw;
GRANT USAGE ON FOREIGN SERVER loop TO weir_app;

CREATE SCHEMA vault AUTHORIZATION weir_app;
CREATE SCHEMA sandbox AUTHORIZATION weir_app;
CREATE SCHEMA shop AUTHORIZATION weir_app;

SET ROLE weir_app;
SET search_path = vault, ext;

-- Cards, accounts and addresses: text.
CREATE TABLE cards (
    id    integer PRIMARY KEY,
    owner text NOT NULL,
    card  text,
    iban  varchar(42),
    mail  text,
    level integer NOT NULL
);
CREATE INDEX cards_card ON cards (card) INCLUDE (id);
CREATE INDEX cards_mail ON cards (lower(mail));
CREATE STATISTICS cards_stat (mcv, dependencies) ON card, iban FROM cards;

-- What everybody may see, to hold the cards against.
CREATE TABLE notes (id integer PRIMARY KEY, card_id integer NOT NULL, body text NOT NULL, guess text NOT NULL);

-- One column of each type that can hold a value.
CREATE TYPE pair AS (tag text, num bigint);
CREATE DOMAIN card_no AS text CHECK (VALUE ~ '^[0-9 -]+$');
CREATE TABLE wide (
    id    integer PRIMARY KEY,
    label text NOT NULL,
    t     text,
    num   numeric(16, 0),
    big   bigint,
    flt   double precision,
    bytes bytea,
    js    json,
    jb    jsonb,
    x     xml,
    tarr  text[],
    narr  bigint[],
    duo   pair,
    rng   int8range,
    mrng  int8multirange,
    hst   hstore,
    dom   card_no,
    d     date,
    ts    timestamptz,
    iv    interval,
    u     uuid,
    ip    inet,
    mac   macaddr,
    bits  bit varying(64),
    pt    point,
    ch    char(20),
    nm    name,
    cit   citext,
    tsv   tsvector,
    cash  money
);

-- Generated columns: computed by the server from a masked one.
CREATE TABLE gen (
    id    integer PRIMARY KEY,
    card  text NOT NULL,
    tail  text GENERATED ALWAYS AS (reverse(card)) STORED,
    first integer GENERATED ALWAYS AS (ascii(card)) STORED,
    label text NOT NULL
);

-- Partitions by a visible column, partitions by the masked one, inheritance.
CREATE TABLE parts (id integer NOT NULL, card text NOT NULL, label text) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_high (label text, card text NOT NULL, id integer NOT NULL);
ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (10) TO (20);
CREATE TABLE by_card (id integer NOT NULL, num bigint NOT NULL, label text) PARTITION BY RANGE (num);
CREATE TABLE by_card_low PARTITION OF by_card FOR VALUES FROM (MINVALUE) TO (6500000000000000);
CREATE TABLE by_card_high PARTITION OF by_card FOR VALUES FROM (6500000000000000) TO (MAXVALUE);
CREATE TABLE parent (id integer PRIMARY KEY, label text);
CREATE TABLE child (card text) INHERITS (parent);
CREATE TABLE elder (id integer PRIMARY KEY, card text);
CREATE TABLE younger (extra text) INHERITS (elder); -- the mask names this one alone

-- Constraints whose violations quote the row.
CREATE TABLE fenced (
    id    integer PRIMARY KEY,
    card  text UNIQUE,
    label text NOT NULL CONSTRAINT fenced_label CHECK (label <> ''),
    score integer NOT NULL CONSTRAINT fenced_score CHECK (score > 0)
);
CREATE TABLE points (card text REFERENCES fenced (card) ON UPDATE CASCADE, points integer NOT NULL, id integer PRIMARY KEY);
CREATE TABLE apart (id integer PRIMARY KEY, card text, EXCLUDE USING gist (card WITH =));

-- Tables with triggers and rules.
CREATE TABLE noisy (id integer PRIMARY KEY, card text, label text);
CREATE FUNCTION noisy_notice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'the card is %', OLD.card;
    RETURN NEW;
END $$;
CREATE TRIGGER noisy_notice BEFORE UPDATE ON noisy FOR EACH ROW EXECUTE FUNCTION noisy_notice();
CREATE TABLE strict (id integer PRIMARY KEY, card text, label text);
CREATE FUNCTION strict_error() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not card %', OLD.card USING DETAIL = 'reversed ' || reverse(OLD.card), HINT = 'ask ' || OLD.card;
END $$;
CREATE TRIGGER strict_error BEFORE DELETE ON strict FOR EACH ROW EXECUTE FUNCTION strict_error();
CREATE TABLE shouting (id integer PRIMARY KEY, card text, label text);
CREATE FUNCTION shouting_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('shouting', OLD.card);
    RETURN NEW;
END $$;
CREATE TRIGGER shouting_notify BEFORE UPDATE ON shouting FOR EACH ROW EXECUTE FUNCTION shouting_notify();
CREATE TABLE ruled (id integer PRIMARY KEY, card text, label text);
CREATE RULE ruled_insert AS ON INSERT TO ruled DO INSTEAD SELECT 'the row was ' || r.card AS answer FROM ruled r WHERE r.id = NEW.id;
CREATE TABLE silent (id integer PRIMARY KEY, card text, label text);
CREATE FUNCTION silent_skip() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.card < '6' THEN RETURN NULL; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER silent_skip BEFORE UPDATE ON silent FOR EACH ROW EXECUTE FUNCTION silent_skip();

-- Large values and lengths.
CREATE TABLE sizes (id integer PRIMARY KEY, label text, memo text);
CREATE TABLE blobs (id integer PRIMARY KEY, label text, content oid);

-- The mask's tests are allowed here, counted there, and nowhere else.
CREATE TABLE open (id integer PRIMARY KEY, card text NOT NULL, label text);
CREATE TABLE metered (id integer PRIMARY KEY, card text NOT NULL, label text);
CREATE TABLE tokens (id integer PRIMARY KEY, card text NOT NULL, code text NOT NULL, label text);

-- Views over cards.
CREATE VIEW v_renamed AS SELECT id AS a, card AS b, owner AS c FROM cards;
CREATE VIEW v_nested AS SELECT c AS owner, b AS level, a AS card FROM v_renamed;
CREATE VIEW v_deep AS SELECT n.level AS plain, n.card AS id FROM v_nested n;
CREATE VIEW v_barrier WITH (security_barrier) AS SELECT id, card AS number FROM cards WHERE level > 0;
CREATE VIEW v_invoker WITH (security_invoker) AS SELECT id, card AS number FROM cards;
CREATE VIEW v_computed AS SELECT id, 'no. ' || reverse(card) AS label, length(card) AS len FROM cards;
CREATE VIEW v_json AS SELECT id, to_jsonb(c) - 'owner' AS doc FROM cards c;
CREATE VIEW v_row AS SELECT id, c AS whole FROM cards c;
CREATE VIEW v_agg AS SELECT level, string_agg(card, ',' ORDER BY id) AS list, array_agg(card ORDER BY id) AS arr FROM cards GROUP BY level;
CREATE VIEW v_union AS SELECT id, body AS txt FROM notes UNION ALL SELECT id, card FROM cards;
CREATE VIEW v_with AS WITH q AS (SELECT id AS k, card AS v FROM cards) SELECT k, v FROM q;
CREATE VIEW v_lateral AS SELECT c.id, x.v FROM cards c CROSS JOIN LATERAL (VALUES (c.card), (c.mail)) x(v);
CREATE VIEW v_sub AS SELECT n.id, (SELECT c.card FROM cards c WHERE c.id = n.card_id) AS txt FROM notes n;
CREATE VIEW v_case AS SELECT id, CASE WHEN level > 0 THEN card END AS txt FROM cards;
CREATE VIEW v_chars AS SELECT id, s.i, substr(card, s.i, 1) AS ch FROM cards, generate_series(1, 16) s(i);
-- Views that test a masked column and show none.
CREATE VIEW v_where AS SELECT id, owner FROM cards WHERE card LIKE '6%' OR card LIKE '45%';
CREATE VIEW v_sorted AS SELECT id, owner FROM cards ORDER BY card;
CREATE VIEW v_rank AS SELECT id, rank() OVER (ORDER BY mail) AS place FROM cards;
CREATE VIEW v_flag AS SELECT id, card < '56' AS low FROM cards;
CREATE VIEW v_count AS SELECT count(*) FILTER (WHERE iban LIKE 'DE5%') AS n FROM cards;
CREATE VIEW v_join AS SELECT c.id, n.id AS note FROM cards c JOIN notes n ON c.card > n.guess;
CREATE VIEW v_distinct AS SELECT DISTINCT ON (left(card, 1)) id FROM cards ORDER BY left(card, 1), id;
CREATE MATERIALIZED VIEW m_cards AS SELECT id, card AS txt, level FROM cards WITH NO DATA;
CREATE MATERIALIZED VIEW m_computed AS SELECT id, encode(card::bytea, 'hex') AS code FROM cards WITH NO DATA;
CREATE VIEW v_over_m AS SELECT id, txt AS other FROM m_cards;
CREATE MATERIALIZED VIEW m_over_v AS SELECT a AS k, b AS v FROM v_renamed WITH NO DATA;

-- Functions.
CREATE FUNCTION card_of(integer) RETURNS text LANGUAGE sql STABLE AS 'SELECT card FROM vault.cards WHERE id = $1';
CREATE FUNCTION card_of_named(which integer) RETURNS text LANGUAGE sql STABLE AS 'SELECT c.card FROM vault.cards c WHERE c.id = which';
CREATE FUNCTION card_of_atomic(n integer) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT card FROM cards WHERE id = n; END;
CREATE FUNCTION card_of_return(n integer) RETURNS text LANGUAGE sql STABLE RETURN (SELECT card FROM cards WHERE id = n);
CREATE FUNCTION card_of_two(n integer) RETURNS text LANGUAGE sql STABLE AS 'SELECT vault.card_of(n)';
CREATE FUNCTION owner_of(n integer) RETURNS text LANGUAGE sql STABLE AS 'SELECT owner FROM vault.cards WHERE id = n';
CREATE FUNCTION row_of(n integer) RETURNS cards LANGUAGE sql STABLE AS 'SELECT c FROM vault.cards c WHERE id = n';
CREATE FUNCTION all_cards() RETURNS SETOF cards LANGUAGE sql STABLE AS 'SELECT * FROM vault.cards';
CREATE FUNCTION table_of(OUT who text, OUT what text) RETURNS SETOF record LANGUAGE sql STABLE AS 'SELECT owner, card FROM vault.cards';
CREATE FUNCTION anything() RETURNS SETOF record LANGUAGE sql STABLE AS 'SELECT id, card FROM vault.cards';
CREATE FUNCTION list_of(n integer) RETURNS text[] LANGUAGE sql STABLE AS 'SELECT array_agg(card) FROM vault.cards WHERE level = n';
CREATE FUNCTION with_default(n integer, suffix text DEFAULT vault.card_of(3)) RETURNS text LANGUAGE sql STABLE AS 'SELECT suffix';
CREATE FUNCTION by_path(n integer) RETURNS text LANGUAGE sql STABLE SET search_path = vault AS 'SELECT card FROM cards WHERE id = n';
CREATE FUNCTION pl_card(n integer) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE c text;
BEGIN
    SELECT card INTO c FROM vault.cards WHERE id = n;
    RETURN c;
END $$;
CREATE FUNCTION pl_assign(n integer) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE c text := (SELECT card FROM vault.cards WHERE id = n); r text := '';
BEGIN
    FOR i IN 1 .. length(c) LOOP r := substr(c, i, 1) || r; END LOOP;
    RETURN r;
END $$;
CREATE FUNCTION pl_query(n integer) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT card FROM vault.cards WHERE level = n;
END $$;
CREATE FUNCTION pl_dynamic(col text, tab text) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE 'SELECT ' || col || '::text FROM ' || tab || ' ORDER BY id';
END $$;
CREATE FUNCTION pl_run(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN
    EXECUTE q INTO r;
    RETURN r;
END $$;
CREATE FUNCTION pl_notice(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '%', (SELECT card FROM vault.cards WHERE id = n);
END $$;
CREATE FUNCTION pl_error(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = (SELECT card FROM vault.cards WHERE id = n), ERRCODE = 'P0001';
END $$;
CREATE FUNCTION pl_code(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = (SELECT substr(translate(card, ' -', ''), 1, 5) FROM vault.cards WHERE id = n);
END $$;
CREATE FUNCTION pl_fields(n integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c text := (SELECT card FROM vault.cards WHERE id = n);
BEGIN
    RAISE EXCEPTION USING MESSAGE = 'no', COLUMN = c, CONSTRAINT = c, DATATYPE = c, TABLE = c, SCHEMA = c, DETAIL = c, HINT = c;
END $$;
CREATE FUNCTION pl_cursor() RETURNS refcursor LANGUAGE plpgsql AS $$
DECLARE c refcursor := 'leaky';
BEGIN
    OPEN c FOR SELECT id, card FROM vault.cards ORDER BY id;
    RETURN c;
END $$;
CREATE FUNCTION pl_store(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sandbox.kept SELECT id, card FROM vault.cards WHERE id = n;
END $$;
CREATE FUNCTION pl_setting(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('my.card', (SELECT card FROM vault.cards WHERE id = n), false);
END $$;
CREATE FUNCTION pl_sleep(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT card < '57' FROM vault.cards WHERE id = n) THEN PERFORM pg_sleep(1); END IF;
END $$;
CREATE FUNCTION pl_temp() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE leaky AS SELECT id, card FROM vault.cards;
END $$;
CREATE PROCEDURE proc_card(n integer, INOUT c text) LANGUAGE plpgsql AS $$
BEGIN
    SELECT card INTO c FROM vault.cards WHERE id = n;
END $$;
CREATE PROCEDURE proc_notice(n integer) LANGUAGE plpgsql AS $$
BEGIN
    RAISE WARNING '%', (SELECT card FROM vault.cards WHERE id = n);
END $$;
-- Functions that read nothing and make something of what they are given.
CREATE FUNCTION twist(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT reverse($1)';
CREATE FUNCTION pl_twist(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN translate(v, '0456789', 'qwertyu'); END $$;
CREATE FUNCTION tell(v text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'told %', v; RETURN 1; END $$;
CREATE FUNCTION same(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
CREATE OPERATOR <~> (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
CREATE AGGREGATE glue(text) (SFUNC = textcat, STYPE = text, INITCOND = '');
-- Functions with their owner's rights.
RESET ROLE;
CREATE FUNCTION vault.secdef_card(n integer) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT card FROM vault.cards WHERE id = n';
CREATE FUNCTION vault.secdef_dynamic(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE r text;
BEGIN
    EXECUTE q INTO r;
    RETURN r;
END $$;

-- Foreign tables: a file of the server's, and the same database over a connection.
CREATE FOREIGN TABLE vault.f_file (id integer, card text, label text) SERVER files OPTIONS (filename '/nonexistent', format 'csv');
CREATE FOREIGN TABLE vault.f_cards (id integer, card text, owner text) SERVER loop OPTIONS (schema_name 'vault', table_name 'remote');
ALTER FOREIGN TABLE vault.f_file OWNER TO weir_app;
ALTER FOREIGN TABLE vault.f_cards OWNER TO weir_app;
SET ROLE weir_app;
SET search_path = vault, ext;
CREATE TABLE remote (id integer PRIMARY KEY, card text, owner text);
CREATE SEQUENCE seq;
CREATE TABLE sandbox.kept (id integer, txt text);
CREATE TABLE sandbox.files (line text);
CREATE VIEW sandbox.notes AS SELECT id, guess AS c FROM notes;

-- The shop of the other tests, with other values on the right.
SET search_path = shop;
CREATE TABLE customers (id integer PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE, phone text, iban varchar(42));
CREATE TABLE payments (id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customers (id), card_number text NOT NULL,
    amount numeric(10, 2) NOT NULL CHECK (amount > 0), note text);
CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customers (id), item text NOT NULL,
    total numeric(10, 2) NOT NULL, placed_at timestamptz NOT NULL);
CREATE VIEW customer_payments AS
    SELECT c.id AS customer_id, c.name, c.email, p.id AS payment_id, p.card_number, p.amount FROM customers c JOIN payments p ON p.customer_id = c.id;
CREATE VIEW rows AS SELECT id, row_to_json(p)::text AS j FROM payments p;
CREATE VIEW rows_again AS SELECT j AS k FROM rows;
CREATE VIEW renamed AS SELECT id, card_number AS note FROM payments;
CREATE FUNCTION customer_total(customer integer) RETURNS numeric LANGUAGE sql STABLE AS
    'SELECT coalesce(sum(o.total), 0) FROM shop.orders o WHERE o.customer_id = customer';
RESET ROLE;
