"""psycopg 3 through Weir: HOST PORT DATABASE. Prints "ok" when every step held."""
import sys

import psycopg

host, port, db = sys.argv[1:4]
with psycopg.connect(host=host, port=port, dbname=db, user="ann", autocommit=True) as conn:
    for _ in range(8):  # past prepare_threshold: server-side prepared from the sixth on
        row = conn.execute("SELECT item, total FROM shop.orders WHERE id = %s", (7,)).fetchone()
        assert row[0] == "clock", row
    cur = conn.cursor(binary=True)
    assert cur.execute("SELECT id, placed_at FROM shop.orders WHERE id = %s", (3,)).fetchone()[0] == 3
    try:
        conn.execute("DROP TABLE shop.orders")
        sys.exit("a denied DROP passed")
    except psycopg.errors.InsufficientPrivilege as e:
        assert str(e).startswith("weir:"), e
    assert conn.execute("SELECT 1").fetchone() == (1,)

    try:
        with conn.transaction():
            conn.execute("SELECT 1")
            try:
                conn.execute("DROP TABLE shop.orders")
                sys.exit("a denied DROP passed in a transaction")
            except psycopg.errors.InsufficientPrivilege:
                pass
            conn.execute("SELECT 1")
            sys.exit("the transaction did not fail")
    except psycopg.errors.InFailedSqlTransaction:
        pass
    assert conn.execute("SELECT 2").fetchone() == (2,)

    if psycopg.capabilities.has_pipeline() if hasattr(psycopg, "capabilities") else psycopg.Pipeline.is_supported():
        with conn.pipeline():
            cursors = [conn.cursor() for _ in range(20)]
            for i, c in enumerate(cursors):
                c.execute("SELECT %s::int", (i,))
            assert [c.fetchone()[0] for c in cursors] == list(range(20))
        refused = False
        try:
            with conn.pipeline() as p:
                a = conn.execute("SELECT 1")
                conn.execute("DROP TABLE shop.orders")
                conn.execute("SELECT 3")
                p.sync()
                assert a.fetchone() == (1,)
        except psycopg.errors.InsufficientPrivilege:
            refused = True
        assert refused
        assert conn.execute("SELECT 4").fetchone() == (4,)

    with conn.cursor().copy("COPY (SELECT id, item FROM shop.orders ORDER BY id LIMIT 3) TO STDOUT") as copy:
        rows = [r for r in copy.rows()]
    assert rows == [("1", "kettle"), ("2", "lamp"), ("3", "notebook")], rows
print("ok")
