"""psycopg 2 through Weir: HOST PORT DATABASE. Prints "ok" when every step held."""
import sys

import psycopg2

host, port, db = sys.argv[1:4]
conn = psycopg2.connect(host=host, port=port, dbname=db, user="ann")
conn.autocommit = True
cur = conn.cursor()
cur.execute("SELECT count(*) FROM shop.orders WHERE total > %s", (0,))
assert cur.fetchone()[0] == 100
cur.execute("SELECT card_number FROM shop.payments ORDER BY id LIMIT 1")
assert cur.fetchone()[0].endswith("1111")

try:
    cur.execute("DROP TABLE shop.orders")
    sys.exit("a denied DROP passed")
except psycopg2.errors.InsufficientPrivilege as e:
    assert str(e).startswith("weir:"), e
cur.execute("SELECT 1")
assert cur.fetchone() == (1,)

conn.autocommit = False
cur.execute("SELECT 1")
try:
    cur.execute("DROP TABLE shop.orders")
    sys.exit("a denied DROP passed in a transaction")
except psycopg2.errors.InsufficientPrivilege:
    pass
try:
    cur.execute("SELECT 1")
    sys.exit("the transaction did not fail")
except psycopg2.errors.InFailedSqlTransaction:
    pass
conn.rollback()
cur.execute("SELECT 2")
assert cur.fetchone() == (2,)
conn.rollback()

named = conn.cursor("big")
named.itersize = 10
named.execute("SELECT id FROM shop.orders ORDER BY id")
assert [r[0] for r in named][:3] == [1, 2, 3]
conn.rollback()
conn.close()
print("ok")
