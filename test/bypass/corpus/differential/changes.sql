-- Changes in the style of PostgreSQL's documentation. All are rolled back.
-- The key except names relations that the server turns to by itself, for keys and rules.
-- class: change
-- who: max

-- case: insert
INSERT INTO weather VALUES ('Berkeley', 45, 53, 0.0, '1994-11-28')

-- case: insert columns
INSERT INTO weather (date, city, temp_hi, temp_lo) VALUES ('1994-11-29', 'Oakland', 54, 37)

-- case: insert rows
INSERT INTO products (product_no, name, price) VALUES (11, 'Tea', 9.99), (12, 'Rice', 1.99)

-- case: insert defaults
INSERT INTO t1 DEFAULT VALUES

-- case: insert of a query
INSERT INTO t1 SELECT num, value FROM t2 WHERE num > 1

-- case: insert returning
INSERT INTO distributors (did, dname) VALUES (201, 'XYZ Widgets') RETURNING did, upper(dname) AS d

-- case: insert returning all
INSERT INTO products (product_no, name, price, discount) VALUES (21, 'Jam', 4, 1) RETURNING *

-- case: upsert that updates
INSERT INTO distributors (did, dname) VALUES (105, 'Gizmo'), (302, 'Associated') ON CONFLICT (did) DO UPDATE SET dname = EXCLUDED.dname

-- case: upsert returning
INSERT INTO distributors AS d (did, dname) VALUES (106, 'Again'), (303, 'New') ON CONFLICT (did) DO UPDATE SET dname = EXCLUDED.dname || ' (formerly ' || d.dname || ')' WHERE d.did <> 0 RETURNING d.dname

-- case: do nothing
INSERT INTO distributors VALUES (401, 'Nothing'), (105, 'Redline') ON CONFLICT DO NOTHING

-- case: insert with a key elsewhere
-- except: docs.products docs.orders
INSERT INTO order_items VALUES (4, 2, 1)

-- case: insert into a partition
INSERT INTO measurement VALUES (3, '2006-05-05', 1, 2), (4, '2007-05-05', 3, 4)

-- case: insert into a view
-- except: docs.films docs.comedies
INSERT INTO comedies VALUES ('N0001', 'New', 105, '2001-01-01', 'Comedy', '90 minutes') RETURNING title

-- case: with insert
WITH src AS (SELECT num + 10 AS n, value FROM t2) INSERT INTO t1 SELECT n, value FROM src RETURNING num, name

-- case: update
UPDATE weather SET temp_hi = temp_hi - 2, temp_lo = temp_lo - 2 WHERE date > '1994-11-28'

-- case: update all
UPDATE products SET price = price * 1.10

-- case: update returning
UPDATE products SET price = price * 1.10 WHERE price <= 99.99 RETURNING name, price AS new_price

-- case: update of several
UPDATE weather SET (temp_lo, temp_hi, prcp) = (temp_lo + 1, temp_lo + 15, DEFAULT) WHERE city = 'San Francisco' AND date = '1994-11-27' RETURNING temp_lo, temp_hi, prcp

-- case: update from
UPDATE accounts SET balance = accounts.balance + b.balance FROM branches b WHERE b.name = accounts.branch AND b.name = 'north' RETURNING accounts.owner, b.balance

-- case: update by a subquery
UPDATE t1 SET name = (SELECT value FROM t2 WHERE t2.num = t1.num) WHERE num = 3

-- case: update a row by a subquery
UPDATE accounts SET (owner, balance) = (SELECT name, balance FROM branches WHERE branches.name = accounts.branch) WHERE acctnum = 1

-- case: update in a subquery
UPDATE branches SET balance = balance + 1 WHERE name = (SELECT branch FROM accounts WHERE owner = 'Bob')

-- case: update an array
UPDATE sal_emp SET pay_by_quarter[4] = 15000 WHERE name = 'Bill' RETURNING pay_by_quarter

-- case: update a field
UPDATE on_hand SET item.price = (item).price + 1 WHERE count = 1000 RETURNING (item).price, count

-- case: update json
UPDATE api SET jdoc['k'] = '1' WHERE id = 1 RETURNING jdoc

-- case: update inherited
UPDATE cities SET elevation = elevation + 1 WHERE elevation > 800 RETURNING name, elevation

-- case: update only
UPDATE ONLY cities SET elevation = 0 WHERE name = 'Hayward'

-- case: update across partitions
-- except: docs.measurement docs.measurement_y2006 docs.measurement_y2007
UPDATE measurement SET logdate = '2007-06-06' WHERE city_id = 1

-- case: update a view
-- except: docs.films docs.comedies
UPDATE comedies SET title = title || '!' WHERE did = 105 RETURNING title, len

-- case: update with a rule
-- except: docs.shoelace_log
UPDATE shoelace_data SET sl_avail = 1 WHERE sl_name = 'sl1'

-- case: with update
WITH moved AS (UPDATE accounts SET balance = balance - 10 WHERE acctnum = 1 RETURNING branch, 10 AS amount) UPDATE branches b SET balance = b.balance + m.amount FROM moved m WHERE b.name = m.branch RETURNING b.name, m.amount

-- case: delete
DELETE FROM weather WHERE city = 'Hayward'

-- case: delete all
DELETE FROM weather

-- case: delete returning
DELETE FROM films WHERE kind <> 'Drama' RETURNING *

-- case: delete using
DELETE FROM films USING distributors d WHERE films.did = d.did AND d.dname = 'Toho' RETURNING films.title, d.dname

-- case: delete in a subquery
DELETE FROM t1 WHERE num IN (SELECT num FROM t2)

-- case: delete that cascades
-- except: docs.order_items
DELETE FROM orders WHERE order_id = 2

-- case: delete of a partition's rows
DELETE FROM measurement WHERE logdate < '2007-01-01' RETURNING city_id, logdate

-- case: delete from a view
-- except: docs.films docs.comedies
DELETE FROM comedies WHERE did = 110

-- case: with delete
WITH moved_rows AS (DELETE FROM t1 WHERE num < 3 RETURNING *) INSERT INTO t2 SELECT * FROM moved_rows RETURNING value

-- case: with delete recursive
WITH RECURSIVE included(sub_part, part) AS (SELECT sub_part, part FROM parts WHERE part = 'our_product' UNION ALL SELECT p.sub_part, p.part FROM included pr, parts p WHERE p.part = pr.sub_part) DELETE FROM parts WHERE part IN (SELECT part FROM included)

-- case: delete and see
WITH t AS (DELETE FROM t2 WHERE num = 5 RETURNING *) SELECT t.value, t1.name FROM t1, t

-- case: merge
MERGE INTO accounts a USING branches b ON a.branch = b.name AND b.name = 'north' WHEN MATCHED THEN UPDATE SET balance = a.balance + b.balance WHEN NOT MATCHED THEN INSERT (acctnum, owner, balance, branch) VALUES (length(b.name), 'new', b.balance, b.name)

-- case: merge that deletes
MERGE INTO t1 USING (SELECT num, value FROM t2) s ON t1.num = s.num WHEN MATCHED AND s.num = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET name = s.value WHEN NOT MATCHED THEN INSERT VALUES (s.num, s.value)

-- case: truncate
TRUNCATE t1, t2

-- case: create table as
CREATE TABLE films_recent AS SELECT * FROM films WHERE date_prod >= '1970-01-01'

-- case: select into
SELECT code, title INTO films_short FROM films WHERE kind = 'Comedy'

-- case: create temp table as
CREATE TEMP TABLE temp_films ON COMMIT DROP AS TABLE films

-- case: refresh
-- except: docs.invoice docs.sales_summary
REFRESH MATERIALIZED VIEW sales_summary

-- case: copy out
COPY (SELECT title, kind FROM films) TO STDOUT

-- case: copy table out
COPY t1 (name) TO STDOUT (FORMAT csv)

-- case: copy in
-- rows: 7\tseven\n8\teight\n\.\n
COPY t1 FROM STDIN

-- case: explain
EXPLAIN SELECT * FROM films WHERE did = 105

-- case: explain analyze
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) UPDATE t1 SET name = 'x' WHERE num = 1

-- case: prepared
PREPARE fooplan (int, text) AS INSERT INTO t1 VALUES ($1, $2)
-- then
EXECUTE fooplan(1, 'Hunter Valley')
-- then
DEALLOCATE fooplan

-- case: cursor
DECLARE liahona SCROLL CURSOR FOR SELECT title FROM films ORDER BY code
-- then
FETCH FORWARD 2 FROM liahona
-- then
MOVE BACKWARD 1 IN liahona
-- then
CLOSE liahona

-- case: current of
DECLARE c_films CURSOR FOR SELECT * FROM films WHERE code = 'UA502' FOR UPDATE
-- then
FETCH 1 FROM c_films
-- then
UPDATE films SET kind = 'Dramatic' WHERE CURRENT OF c_films
-- then
CLOSE c_films

-- case: function that reads
-- except: docs.products
SELECT getname(2)

-- case: lock
LOCK TABLE films IN SHARE ROW EXCLUSIVE MODE

-- case: index
CREATE INDEX title_idx ON films ((lower(title)))

-- case: comment
COMMENT ON TABLE films IS 'some films'

-- case: add a column
ALTER TABLE distributors ADD COLUMN address varchar(30)
