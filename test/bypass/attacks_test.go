package bypass

import (
	"strings"
	"testing"
)

// attack is a session: statements one after the other; those behind pipeline go in
// one batch, each with a Flush.
type attack struct {
	name, who string
	params    []string
	send      []string
}

const pipeline = "pipeline:"

// attacks each brought a masked value out once.
var attacks = []attack{
	{"regoper", "ann", nil, []string{`SELECT ` + letters + `::regoper FROM shop.payments WHERE id = 3`}},
	{"regoperator", "ann", nil, []string{`SELECT (` + letters + ` || '(int4,int4)')::regoperator FROM shop.payments WHERE id = 3`}},
	{"function address", "ann", nil, []string{`SELECT pg_get_object_address('function', ARRAY[` + letters + `], '{int4}') FROM shop.payments WHERE id = 3`}},
	{"operator address", "ann", nil, []string{`SELECT pg_get_object_address('operator', ARRAY[` + letters + `], '{int4,int4}') FROM shop.payments WHERE id = 3`}},
	{"aggregate address", "ann", nil, []string{`SELECT pg_get_object_address('aggregate', ARRAY[` + letters + `], '{int4}') FROM shop.payments WHERE id = 3`}},
	{"dotted table", "ann", nil, []string{`SELECT pg_get_object_address('table', ARRAY[` + letters + `, 'a', 'b', 'c'], '{}') FROM shop.payments WHERE id = 3`}},
	{"dotted regclass", "ann", nil, []string{`SELECT (` + letters + ` || '.b.c.d')::regclass FROM shop.payments WHERE id = 3`}},
	{"to_regclass", "ann", nil, []string{`SELECT to_regclass(` + letters + ` || '.b.c.d') FROM shop.payments WHERE id = 3`}},
	{"regproc database", "ann", nil, []string{`SELECT (` + letters + ` || '.b.c')::regproc FROM shop.payments WHERE id = 3`}},
	{"dotted regproc", "ann", nil, []string{`SELECT (` + letters + ` || '.b.c.d')::regproc FROM shop.payments WHERE id = 3`}},
	{"dotted regtype", "ann", nil, []string{`SELECT (` + letters + ` || '.b.c.d')::regtype FROM shop.payments WHERE id = 3`}},
	{"dotted regconfig", "ann", nil, []string{`SELECT (` + letters + ` || '.b.c.d')::regconfig FROM shop.payments WHERE id = 3`}},
	{"to_ascii", "ann", nil, []string{`SELECT to_ascii('a', ` + letters + `) FROM shop.payments WHERE id = 3`}},
	{"strings in a pipeline", "ann", nil, []string{pipeline, `SET standard_conforming_strings = off`, `SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$`}},
	{"set_config in a pipeline", "ann", nil, []string{pipeline, `SELECT set_config('standard_conforming_strings', 'off', false)`, `SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$`}},
	{"rolled back in a pipeline", "ann", nil, []string{`SET standard_conforming_strings = off`, pipeline, `BEGIN`, `SET LOCAL standard_conforming_strings = on`, `ROLLBACK`, `SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$`}},
	{"reset in a pipeline", "ann", nil, []string{pipeline, `BEGIN`, `SET LOCAL standard_conforming_strings = off`, `SELECT '\' || $q$', reverse(card_number) FROM shop.payments -- $q$`, `COMMIT`}},
	{"application_name", "ann", nil, []string{`SELECT set_config('application_name', reverse(card_number), false) FROM shop.payments WHERE id = 3`, `SHOW application_name`}},
	{"current_setting", "dee", nil, []string{`SELECT set_config('application_name', ` + letters + `, false) FROM shop.payments WHERE id = 3`, `SELECT current_setting('application_name')`}},
	{"statement_timeout", "ann", nil, []string{`SELECT set_config('statement_timeout', substr(card_number, 1, 9), false) FROM shop.payments WHERE id = 3`, `SHOW statement_timeout`}},
	{"timezone", "ann", nil, []string{`SELECT set_config('timezone', '<' || ` + letters + ` || '>4', false) FROM shop.payments WHERE id = 3`, `SELECT lower(to_char(now(), 'TZ'))`}},
	{"setseed", "ann", nil, []string{`SELECT setseed(substr(card_number, 1, 6)::float8 / 1e6) FROM shop.payments WHERE id = 3`, `SELECT 'seed', random()`}},
	{"error at commit", "ann", nil, []string{`BEGIN`, `DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3`, `COMMIT`}},
	{"error at commit, detail", "dee", nil, []string{`BEGIN`, `DECLARE c CURSOR WITH HOLD FOR SELECT ('[' || ` + letters + `)::json FROM shop.payments WHERE id = 3`, `END`}},
	{"error at commit, extended", "ann", nil, []string{`BEGIN`, `DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3`, pipeline, `COMMIT`}},
	{"in one string", "ann", nil, []string{`BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3; COMMIT`}},
	{"and chain", "ann", nil, []string{`BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3; COMMIT AND CHAIN; SELECT 1`}},
	{"behind others", "ann", nil, []string{`BEGIN`, `DECLARE c CURSOR WITH HOLD FOR SELECT card_number::int FROM shop.payments WHERE id = 3`, `SELECT 1; COMMIT; SELECT 2`}},
}

// seeded is what random() gives after setseed(0.378282), the first digits of a
// planted card.
const seeded = "0.528281748324783"

// TestAttacks: sessions that brought a masked value out before they were stopped.
func TestAttacks(t *testing.T) {
	runAttacks(t, attacks)
}

func runAttacks(t *testing.T, list []attack) {
	t.Helper()
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			c := connect(t, a.who, a.params...)
			for i := 0; i < len(a.send); i++ {
				if a.send[i] != pipeline {
					c.query(a.send[i])
					continue
				}
				var batch sent
				for i++; i < len(a.send); i++ {
					batch = append(append(batch, run(a.send[i])...), flush...)
				}
				c.send(append(batch, end...)...)
				c.until('Z')
			}
			if l := leaks(c.seen); l != "" {
				t.Errorf("%s shows", l)
			}
			if strings.Contains(string(c.seen), seeded) {
				t.Error("random() tells what it was seeded with")
			}
		})
	}
}

// TestPipelinedStrings: the server must not run what weir reads as a string.
func TestPipelinedStrings(t *testing.T) {
	c := connect(t, "ann")
	c.send(all(run(`SET standard_conforming_strings = off`), flush,
		run(`WITH a AS (SELECT '\' , $q$'), b AS (UPDATE shop.orders SET item = 'taken' RETURNING 1) SELECT * FROM b -- $q$) SELECT 1`), end)...)
	c.until('Z')
	if n := ask(t, "SELECT count(*) FROM shop.orders WHERE item = 'taken'"); n != "0" {
		t.Errorf("%s orders were changed", n)
	}
}
