-- A database in the style of PostgreSQL's documentation, for what Weir says of a
-- statement to be held against what the server says. Nothing in it is masked.
CREATE SCHEMA docs AUTHORIZATION weir_dba;
ALTER DATABASE docs SET search_path = docs;
SET search_path = docs;
SET ROLE weir_dba;

CREATE TABLE cities (name varchar(80) PRIMARY KEY, population real, elevation integer);
CREATE TABLE capitals (state char(2) UNIQUE NOT NULL) INHERITS (cities);
CREATE TABLE weather (city varchar(80), temp_lo integer, temp_hi integer, prcp real, date date);
CREATE TABLE products (product_no integer PRIMARY KEY, name text NOT NULL, price numeric CHECK (price > 0), discount numeric DEFAULT 0,
    net numeric GENERATED ALWAYS AS (price - discount) STORED);
CREATE TABLE orders (order_id integer PRIMARY KEY, shipping_address text, placed date);
CREATE TABLE order_items (product_no integer REFERENCES products ON DELETE RESTRICT, order_id integer REFERENCES orders ON DELETE CASCADE, quantity integer,
    PRIMARY KEY (product_no, order_id));
CREATE TABLE empsalary (depname text, empno integer PRIMARY KEY, salary integer, enroll_date date);
CREATE TABLE films (code char(5) PRIMARY KEY, title varchar(40) NOT NULL, did integer NOT NULL, date_prod date, kind varchar(10), len interval);
CREATE TABLE distributors (did integer PRIMARY KEY, dname text UNIQUE);
CREATE TABLE accounts (acctnum integer PRIMARY KEY, owner text, balance numeric, branch text);
CREATE TABLE branches (name text PRIMARY KEY, balance numeric);
CREATE TABLE t1 (num integer, name text);
CREATE TABLE t2 (num integer, value text);
CREATE TABLE sal_emp (name text, pay_by_quarter integer[], schedule text[][]);
CREATE TYPE inventory_item AS (name text, supplier_id integer, price numeric);
CREATE TABLE on_hand (item inventory_item, count integer);
CREATE TABLE measurement (city_id integer NOT NULL, logdate date NOT NULL, peaktemp integer, unitsales integer) PARTITION BY RANGE (logdate);
CREATE TABLE measurement_y2006 PARTITION OF measurement FOR VALUES FROM ('2006-01-01') TO ('2007-01-01');
CREATE TABLE measurement_y2007 (unitsales integer, peaktemp integer, logdate date NOT NULL, city_id integer NOT NULL);
ALTER TABLE measurement ATTACH PARTITION measurement_y2007 FOR VALUES FROM ('2007-01-01') TO ('2008-01-01');
CREATE TABLE parts (part text, sub_part text, quantity integer);
CREATE TABLE graph (id integer, link integer, data text);
CREATE TABLE api (id integer PRIMARY KEY, jdoc jsonb, raw json);
CREATE TABLE reservation (room integer, during tsrange);
CREATE TABLE messages (id integer PRIMARY KEY, title text, body text, tsv tsvector);
CREATE TABLE invoice (invoice_no integer PRIMARY KEY, seller_no integer, invoice_date date, invoice_amt numeric(13,2));
CREATE TABLE shoelace_log (sl_name text, sl_avail integer);
CREATE TABLE shoelace_data (sl_name text PRIMARY KEY, sl_avail integer, sl_color text);

CREATE VIEW myview AS SELECT w.city, w.temp_lo, w.temp_hi, w.prcp, w.date, c.population FROM weather w, cities c WHERE w.city = c.name;
CREATE VIEW comedies AS SELECT * FROM films WHERE kind = 'Comedy';
CREATE VIEW phone_like (label, cost) AS SELECT upper(name), price FROM products;
CREATE VIEW nested AS SELECT label || '!' AS loud, cost FROM phone_like;
CREATE RECURSIVE VIEW nums_1_5 (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM nums_1_5 WHERE n < 5;
CREATE MATERIALIZED VIEW sales_summary AS SELECT seller_no, invoice_date, sum(invoice_amt)::numeric(13,2) AS sales_amt FROM invoice GROUP BY seller_no, invoice_date;
CREATE RULE log_shoelace AS ON UPDATE TO shoelace_data WHERE NEW.sl_avail <> OLD.sl_avail DO INSERT INTO shoelace_log VALUES (NEW.sl_name, NEW.sl_avail);

CREATE FUNCTION getname(integer) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM docs.products WHERE product_no = $1';
CREATE FUNCTION dup(v text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT v || v';
CREATE FUNCTION double_salary(empsalary) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT $1.salary * 2 AS salary';
CREATE FUNCTION staff() RETURNS SETOF empsalary LANGUAGE sql STABLE AS 'SELECT * FROM docs.empsalary';
CREATE FUNCTION cheap(OUT n text, OUT p numeric) RETURNS SETOF record LANGUAGE sql STABLE AS 'SELECT name, price FROM docs.products WHERE price < 50';

INSERT INTO cities VALUES ('San Francisco', 724000, 63), ('Las Vegas', 258300, 2174), ('Mariposa', 1200, 1953), ('Hayward', 160000, 111);
INSERT INTO capitals VALUES ('Sacramento', 369400, 30, 'CA'), ('Madison', 191300, 845, 'WI');
INSERT INTO weather VALUES ('San Francisco', 46, 50, 0.25, '1994-11-27'), ('San Francisco', 43, 57, 0, '1994-11-29'), ('Hayward', 37, 54, NULL, '1994-11-29');
INSERT INTO products (product_no, name, price, discount) VALUES (1, 'Cheese', 9.99, 1), (2, 'Bread', 1.99, 0), (3, 'Milk', 2.99, 0.5), (4, 'Wine', 120, 20);
INSERT INTO orders VALUES (1, 'Main Street', '2020-01-01'), (2, 'Broadway', '2020-01-02');
INSERT INTO order_items VALUES (1, 1, 10), (2, 1, 2), (3, 2, 4);
INSERT INTO empsalary VALUES ('develop', 10, 5200, '2007-08-01'), ('sales', 1, 5000, '2006-10-01'), ('personnel', 5, 3500, '2007-12-10'),
    ('sales', 4, 4800, '2007-08-08'), ('personnel', 2, 3900, '2006-12-23'), ('develop', 7, 4200, '2008-01-01');
INSERT INTO films VALUES ('UA502', 'Bananas', 105, '1971-07-13', 'Comedy', '82 minutes'), ('T_601', 'Yojimbo', 106, '1961-06-16', 'Drama', '110 minutes'), ('B6717', 'Tampopo', 110, '1985-02-10', 'Comedy', '114 minutes');
INSERT INTO distributors VALUES (105, 'United Artists'), (106, 'Toho'), (110, 'Itami');
INSERT INTO accounts VALUES (1, 'Alice', 100, 'north'), (2, 'Bob', 200, 'south');
INSERT INTO branches VALUES ('north', 1000), ('south', 2000);
INSERT INTO t1 VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO t2 VALUES (1, 'xxx'), (3, 'yyy'), (5, 'zzz');
INSERT INTO sal_emp VALUES ('Bill', '{10000, 10000, 10000, 10000}', '{{"meeting", "lunch"}, {"training", "presentation"}}'), ('Carol', '{20000, 25000, 25000, 25000}', '{{"breakfast", "consulting"}, {"meeting", "lunch"}}');
INSERT INTO on_hand VALUES (ROW('fuzzy dice', 42, 1.99), 1000);
INSERT INTO measurement VALUES (1, '2006-02-01', 20, 5), (2, '2007-03-01', 25, 6);
INSERT INTO parts VALUES ('our_product', 'wheel', 4), ('wheel', 'screw', 5), ('wheel', 'rim', 1);
INSERT INTO graph VALUES (1, 2, 'one'), (2, 3, 'two'), (3, NULL, 'three');
INSERT INTO api VALUES (1, '{"guid": "9c36adc1", "name": "Angela", "tags": ["enim", "qui"]}', '{"a": {"b": 1}}');
INSERT INTO reservation VALUES (1108, '[2010-01-01 14:30, 2010-01-01 15:30)');
INSERT INTO messages VALUES (1, 'fat cats', 'the fat cat sat on a mat', to_tsvector('english', 'the fat cat sat on a mat'));
INSERT INTO invoice VALUES (1, 7, '2020-05-01', 10.5), (2, 7, '2020-05-01', 3), (3, 8, '2020-05-02', 4);
INSERT INTO shoelace_data VALUES ('sl1', 5, 'black'), ('sl2', 6, 'black');
REFRESH MATERIALIZED VIEW sales_summary;
ANALYZE;
