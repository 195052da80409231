-- Queries in the style of PostgreSQL's documentation: each once, by what Weir says
-- of it and by what the server says.
-- class: query
-- who: max

-- case: all rows
SELECT * FROM weather

-- case: expression
SELECT city, (temp_hi + temp_lo) / 2 AS temp_avg, date FROM weather

-- case: where
SELECT * FROM weather WHERE city = 'San Francisco' AND prcp > 0.0

-- case: order by two
SELECT * FROM weather ORDER BY city, temp_lo

-- case: distinct
SELECT DISTINCT city FROM weather ORDER BY city

-- case: join by where
SELECT city, temp_lo, temp_hi, prcp, date, population FROM weather, cities WHERE city = name

-- case: join by on
SELECT * FROM weather JOIN cities ON weather.city = cities.name

-- case: left outer join
SELECT w.city, w.temp_lo, c.elevation FROM weather w LEFT OUTER JOIN cities c ON w.city = c.name

-- case: self join
SELECT w1.city, w1.temp_lo AS low, w1.temp_hi AS high, w2.city AS city2, w2.temp_lo AS low2 FROM weather w1 JOIN weather w2 ON w1.temp_lo < w2.temp_lo AND w1.temp_hi > w2.temp_hi

-- case: max
SELECT max(temp_lo) FROM weather

-- case: subquery in where
SELECT city FROM weather WHERE temp_lo = (SELECT max(temp_lo) FROM weather)

-- case: group by
SELECT city, count(*), max(temp_lo) FROM weather GROUP BY city

-- case: having
SELECT city, count(*), max(temp_lo) FROM weather GROUP BY city HAVING max(temp_lo) < 40

-- case: filter
SELECT city, count(*) FILTER (WHERE temp_lo < 45), max(temp_lo) FROM weather GROUP BY city

-- case: view
-- except: docs.capitals docs.cities docs.weather
SELECT * FROM myview

-- case: view with a condition
-- except: docs.capitals docs.cities docs.weather
SELECT city, population FROM myview WHERE temp_lo > 40 ORDER BY city

-- case: view of one table
-- except: docs.films
SELECT title, kind FROM comedies

-- case: view with names of its own
-- except: docs.products
SELECT label, cost FROM phone_like WHERE cost < 5

-- case: view over a view
-- except: docs.products
SELECT loud, cost + 1 AS more FROM nested

-- case: recursive view
SELECT n FROM nums_1_5

-- case: materialised view
SELECT seller_no, sales_amt FROM sales_summary ORDER BY 1

-- case: window over partition
SELECT depname, empno, salary, avg(salary) OVER (PARTITION BY depname) FROM empsalary

-- case: window rank
SELECT depname, empno, salary, rank() OVER (PARTITION BY depname ORDER BY salary DESC) FROM empsalary

-- case: window sum of all
SELECT salary, sum(salary) OVER () FROM empsalary

-- case: window running sum
SELECT salary, sum(salary) OVER (ORDER BY salary) FROM empsalary

-- case: window in a subquery
SELECT depname, empno, salary, enroll_date FROM (SELECT depname, empno, salary, enroll_date, rank() OVER (PARTITION BY depname ORDER BY salary DESC, empno) AS pos FROM empsalary) AS ss WHERE pos < 3

-- case: named window
SELECT sum(salary) OVER w, avg(salary) OVER w FROM empsalary WINDOW w AS (PARTITION BY depname ORDER BY salary DESC)

-- case: lag
SELECT empno, salary - lag(salary) OVER (ORDER BY empno) AS diff FROM empsalary

-- case: inheritance
SELECT name, elevation FROM cities WHERE elevation > 500

-- case: only
SELECT name, elevation FROM ONLY cities WHERE elevation > 500

-- case: tableoid
SELECT c.tableoid, c.name, c.elevation FROM cities c WHERE c.elevation > 500

-- case: partitioned
SELECT city_id, logdate, peaktemp FROM measurement

-- case: partition pruned
SELECT count(*) FROM measurement WHERE logdate >= DATE '2007-01-01'

-- case: one partition
SELECT peaktemp, city_id FROM measurement_y2007

-- case: cross join
SELECT * FROM t1 CROSS JOIN t2

-- case: using
SELECT * FROM t1 INNER JOIN t2 USING (num)

-- case: natural
SELECT * FROM t1 NATURAL INNER JOIN t2

-- case: full join
SELECT * FROM t1 FULL JOIN t2 ON t1.num = t2.num

-- case: full join using
SELECT num, name, value FROM t1 FULL JOIN t2 USING (num)

-- case: right join
SELECT t1.name, t2.value FROM t1 RIGHT JOIN t2 ON t1.num = t2.num AND t2.value = 'xxx'

-- case: alias of a join
SELECT j.a, j.c FROM (t1 JOIN t2 USING (num)) AS j (a, b, c)

-- case: lateral
SELECT p.name, x.net2 FROM products p, LATERAL (SELECT p.price * 2 AS net2) x

-- case: lateral with a limit
SELECT o.order_id, i.quantity FROM orders o LEFT JOIN LATERAL (SELECT quantity FROM order_items WHERE order_items.order_id = o.order_id ORDER BY quantity LIMIT 1) i ON true

-- case: values
SELECT * FROM (VALUES (1, 'one'), (2, 'two'), (3, 'three')) AS t (num, letter)

-- case: values alone
VALUES (1, 'one'), (2, 'two')

-- case: table command
TABLE t1

-- case: union
SELECT name FROM t1 UNION SELECT value FROM t2

-- case: union all
SELECT distributors.dname FROM distributors WHERE distributors.dname LIKE 'U%' UNION ALL SELECT films.title FROM films

-- case: intersect
SELECT num FROM t1 INTERSECT SELECT num FROM t2

-- case: except
SELECT num FROM t1 EXCEPT ALL SELECT num FROM t2 ORDER BY num

-- case: with
WITH regional AS (SELECT product_no, sum(quantity) AS total FROM order_items GROUP BY product_no) SELECT p.name, r.total FROM regional r JOIN products p USING (product_no) WHERE r.total > (SELECT avg(total) FROM regional)

-- case: with not materialised
WITH w AS NOT MATERIALIZED (SELECT * FROM products) SELECT w1.name, w2.price FROM w AS w1 JOIN w AS w2 ON w1.product_no = w2.product_no

-- case: with recursive numbers
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t

-- case: with recursive parts
WITH RECURSIVE included_parts(sub_part, part, quantity) AS (SELECT sub_part, part, quantity FROM parts WHERE part = 'our_product' UNION ALL SELECT p.sub_part, p.part, p.quantity * pr.quantity FROM included_parts pr, parts p WHERE p.part = pr.sub_part) SELECT sub_part, sum(quantity) AS total_quantity FROM included_parts GROUP BY sub_part

-- case: search depth first
WITH RECURSIVE search_tree(id, link, data) AS (SELECT t.id, t.link, t.data FROM graph t UNION ALL SELECT t.id, t.link, t.data FROM graph t, search_tree st WHERE t.id = st.link) SEARCH DEPTH FIRST BY id SET ordercol SELECT * FROM search_tree ORDER BY ordercol

-- case: cycle
WITH RECURSIVE search_graph(id, link, data, depth) AS (SELECT g.id, g.link, g.data, 1 FROM graph g UNION ALL SELECT g.id, g.link, g.data, sg.depth + 1 FROM graph g, search_graph sg WHERE g.id = sg.link) CYCLE id SET is_cycle USING path SELECT * FROM search_graph

-- case: exists
SELECT name FROM t1 WHERE EXISTS (SELECT 1 FROM t2 WHERE t2.num = t1.num)

-- case: not in
SELECT name FROM products WHERE product_no NOT IN (SELECT product_no FROM order_items)

-- case: any
SELECT name FROM products WHERE price > ANY (SELECT price FROM products WHERE price < 5)

-- case: row comparison
SELECT name FROM t1 WHERE (num, name) = (SELECT num, 'a' FROM t2 WHERE value = 'xxx')

-- case: scalar subquery
SELECT o.order_id, (SELECT sum(quantity) FROM order_items i WHERE i.order_id = o.order_id) AS pieces FROM orders o

-- case: case
SELECT a.product_no, CASE WHEN price < 3 THEN 'cheap' WHEN price < 50 THEN name ELSE 'dear' END FROM products a

-- case: coalesce
SELECT coalesce(dname, 'none'), nullif(did, 105), greatest(did, 106) FROM distributors

-- case: cast
SELECT price::text, CAST(price AS integer), name::varchar(3) FROM products

-- case: concat
SELECT 'film: ' || title || ' (' || kind || ')' AS about FROM films

-- case: functions of text
SELECT upper(title), substring(title FROM 1 FOR 3), position('a' IN title), overlay(title PLACING 'xx' FROM 1 FOR 2), trim(both 'B' FROM title) FROM films

-- case: extract
SELECT extract(year FROM date_prod), date_trunc('month', date_prod), age(date_prod, '1960-01-01') FROM films

-- case: at time zone
SELECT placed::timestamp AT TIME ZONE 'UTC' FROM orders

-- case: arrays
SELECT name, pay_by_quarter[3], schedule[1:2][1:1] FROM sal_emp

-- case: any of an array
SELECT name FROM sal_emp WHERE 10000 = ANY (pay_by_quarter)

-- case: array functions
SELECT array_dims(schedule), array_length(pay_by_quarter, 1), pay_by_quarter || 1, array_to_string(pay_by_quarter, ',') FROM sal_emp

-- case: unnest
SELECT name, unnest(pay_by_quarter) AS pay FROM sal_emp

-- case: unnest with ordinality
SELECT s.name, u.pay, u.quarter FROM sal_emp s, unnest(s.pay_by_quarter) WITH ORDINALITY AS u(pay, quarter)

-- case: array of a subquery
SELECT ARRAY(SELECT name FROM products ORDER BY product_no), ARRAY[1, 2]

-- case: composite field
SELECT (item).name, (on_hand.item).price FROM on_hand WHERE (on_hand.item).price > 1

-- case: composite star
SELECT (item).* FROM on_hand

-- case: whole row
SELECT c FROM t1 c

-- case: row constructor
SELECT ROW(num, name), ROW(t1.*, 42) FROM t1

-- case: aggregates
SELECT string_agg(name, ', ' ORDER BY price DESC), array_agg(product_no), bool_and(price > 1), sum(DISTINCT price) FROM products

-- case: ordered set
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY salary), mode() WITHIN GROUP (ORDER BY depname) FROM empsalary

-- case: grouping sets
SELECT depname, enroll_date, sum(salary), grouping(depname) FROM empsalary GROUP BY GROUPING SETS ((depname), (enroll_date), ())

-- case: rollup
SELECT depname, empno, sum(salary) FROM empsalary GROUP BY ROLLUP (depname, empno)

-- case: cube
SELECT depname, count(*) FROM empsalary GROUP BY CUBE (depname)

-- case: json fields
SELECT jdoc -> 'guid', jdoc ->> 'name', jdoc #> '{tags,0}' FROM api WHERE jdoc @> '{"name": "Angela"}'

-- case: json subscript
SELECT jdoc['name'] AS n, raw -> 'a' ->> 'b' FROM api

-- case: json path
SELECT jsonb_path_query(jdoc, '$.tags[*]'), jsonb_pretty(jdoc) FROM api

-- case: json elements
SELECT a.id, t.tag FROM api a, jsonb_array_elements_text(a.jdoc -> 'tags') AS t(tag)

-- case: json record
SELECT x.* FROM api, jsonb_to_record(jdoc) AS x(name text, guid text)

-- case: json of rows
SELECT row_to_json(t1), to_jsonb(t1.name), json_build_object('n', num, 'v', name), json_agg(t1) OVER () FROM t1

-- case: json aggregate
SELECT json_object_agg(name, price), jsonb_agg(name) FROM products

-- case: xml
SELECT xmlelement(name p, xmlattributes(product_no AS no), name), xmlforest(price, discount) FROM products

-- case: ranges
SELECT room, lower(during), during && '[2010-01-01 15:00, 2010-01-01 16:00)' AS clash FROM reservation

-- case: text search
SELECT title, ts_rank(tsv, query), ts_headline('english', body, query) FROM messages, to_tsquery('english', 'fat & cat') query WHERE query @@ tsv

-- case: generate series
SELECT current_date + s.a AS dates FROM generate_series(0, 14, 7) AS s(a)

-- case: rows from
SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY['a', 'b', 'c'])) AS f(a, b)

-- case: function of sql
SELECT getname(1), dup(name) FROM products

-- case: function of a row
SELECT empno, double_salary(empsalary.*) AS dream FROM empsalary

-- case: functional notation
SELECT empno, empsalary.double_salary FROM empsalary

-- case: table function
-- except: docs.empsalary
SELECT depname, salary FROM staff() WHERE salary > 4000

-- case: function with out parameters
-- except: docs.products
SELECT n, p * 2 FROM cheap()

-- case: function in the target list
-- except: docs.products
SELECT (cheap()).n

-- case: limit and offset
SELECT title FROM films ORDER BY title LIMIT 2 OFFSET 1

-- case: fetch first
SELECT salary FROM empsalary ORDER BY salary FETCH FIRST 2 ROWS WITH TIES

-- case: distinct on
SELECT DISTINCT ON (city) city, date, temp_lo FROM weather ORDER BY city, date DESC

-- case: generated column
SELECT product_no, net FROM products WHERE net > 2

-- case: tablesample
SELECT city FROM weather TABLESAMPLE SYSTEM (100)

-- case: collate
SELECT name FROM t1 ORDER BY name COLLATE "C"

-- case: like and regular expressions
SELECT title LIKE 'B%', title SIMILAR TO '%(a|b)%', title ~* 'ba', regexp_replace(title, '[aeiou]', '*', 'g') FROM films

-- case: between
SELECT code FROM films WHERE date_prod BETWEEN '1960-01-01' AND '1980-01-01'

-- case: is distinct from
SELECT prcp IS DISTINCT FROM 0, prcp IS NULL, (temp_lo > 40) IS TRUE FROM weather

-- case: bare
SELECT 1, 'a', now() IS NOT NULL, current_user

-- case: no columns
SELECT FROM t1

-- case: system columns
SELECT ctid, xmin::text IS NULL AS dead, num FROM t1

-- case: nested subqueries
SELECT x.label FROM (SELECT y.b AS label FROM (SELECT name AS a, upper(name) AS b FROM products) y) x

-- case: renamed in from
SELECT p.x, p.y FROM products AS p (x, y)

-- case: qualified by schema
SELECT docs.t1.name FROM docs.t1

-- case: quoted names
SELECT "name" AS "The Name", t1."num" FROM "docs"."t1"

-- case: group by expression
SELECT temp_lo / 10 AS decade, min(city) FROM weather GROUP BY temp_lo / 10 ORDER BY decade

-- case: two levels of aggregates
SELECT max(n) FROM (SELECT kind, count(*) AS n FROM films GROUP BY kind) k

-- case: correlated exists in the list
SELECT d.dname, EXISTS (SELECT FROM films f WHERE f.did = d.did) AS has FROM distributors d

-- case: for update
SELECT * FROM accounts WHERE acctnum = 1 FOR UPDATE

-- case: for share of one
SELECT a.owner, b.balance FROM accounts a JOIN branches b ON a.branch = b.name FOR SHARE OF b

-- case: in a list
SELECT dname FROM distributors WHERE did IN (105, 106)

-- case: union in from
SELECT u.v FROM (SELECT num, name AS v FROM t1 UNION ALL SELECT num, value FROM t2) u WHERE u.num > 1

-- case: mixed union of a view
-- except: docs.films docs.products
SELECT label FROM phone_like UNION ALL SELECT title FROM comedies
