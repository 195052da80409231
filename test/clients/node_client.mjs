// node-postgres through Weir: HOST PORT DATABASE. Prints "ok" when every step held.
import assert from 'node:assert/strict'
import pg from 'pg'

const [host, port, database] = process.argv.slice(2)
const c = new pg.Client({ host, port: Number(port), database, user: 'ann' })
await c.connect()
assert.equal((await c.query('SELECT 1 AS one')).rows[0].one, 1)
assert.equal((await c.query('SELECT item FROM shop.orders WHERE id = $1', [2])).rows[0].item, 'lamp')
assert.equal((await c.query({ name: 'named', text: 'SELECT item FROM shop.orders WHERE id = $1', values: [3] })).rows[0].item, 'notebook')
assert.match((await c.query('SELECT card_number FROM shop.payments WHERE id = $1', [1])).rows[0].card_number, /^[* ]+1111$/)
const denied = e => e.code === '42501' && e.message.startsWith('weir:')
await assert.rejects(c.query('DROP TABLE shop.orders'), denied)
await assert.rejects(c.query('DELETE FROM shop.orders WHERE id = $1', [1]), denied)
await c.query('BEGIN')
await assert.rejects(c.query('DELETE FROM shop.orders WHERE id = $1', [1]), denied)
await assert.rejects(c.query('SELECT 1'), e => e.code === '25P02')
await c.query('ROLLBACK')
assert.equal((await c.query('SELECT 2 AS two')).rows[0].two, 2)
await c.end()
console.log('ok')
