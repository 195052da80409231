"""asyncpg through Weir: HOST PORT DATABASE. Prints "ok" when every step held."""
import asyncio
import sys

import asyncpg

host, port, db = sys.argv[1:4]


async def main():
    conn = await asyncpg.connect(host=host, port=int(port), database=db, user="ann")
    assert await conn.fetchval("SELECT count(*) FROM shop.orders WHERE total > $1", 0) == 100
    rows = await conn.fetch("SELECT id, item, placed_at FROM shop.orders ORDER BY id LIMIT 2")
    assert rows[0]["item"] == "kettle"
    card = await conn.fetchval("SELECT card_number FROM shop.payments WHERE id = 1")
    assert card.endswith("1111") and "4111" not in card, "not masked"
    try:
        await conn.execute("DROP TABLE shop.orders")
        sys.exit("a denied DROP passed")
    except asyncpg.InsufficientPrivilegeError as e:
        assert str(e).startswith("weir:"), e
    try:
        await conn.fetch("DELETE FROM shop.orders WHERE id = $1", 1)
        sys.exit("a denied DELETE passed")
    except asyncpg.InsufficientPrivilegeError:
        pass
    assert await conn.fetchval("SELECT 1") == 1
    tr = conn.transaction()
    await tr.start()
    try:
        await conn.execute("DROP TABLE shop.orders")
    except asyncpg.InsufficientPrivilegeError:
        pass
    try:
        await conn.execute("SELECT 1")
        sys.exit("the transaction did not fail")
    except asyncpg.InFailedSQLTransactionError:
        pass
    await tr.rollback()
    async with conn.transaction():
        got = [r["id"] async for r in conn.cursor("SELECT id FROM shop.orders ORDER BY id", prefetch=7)]
        assert got == list(range(1, 101))
    await conn.close()
    print("ok")


asyncio.run(main())
