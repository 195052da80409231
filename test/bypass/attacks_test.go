package bypass

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
)

// A session is how a case is sent.
type way struct {
	name string
	rows bool // for a single query that returns rows
	copy bool // for one that COPY takes
	run  func(r *runner, c *sqlCase)
}

// ways are how a statement goes to the server and its rows come back.
var attackWays = []way{
	{"simple", false, false, func(r *runner, c *sqlCase) { r.steps(c, func(c *client, s *step) { c.simple(s) }) }},
	{"text", false, false, func(r *runner, c *sqlCase) { r.steps(c, func(c *client, s *step) { c.bound(s, 0) }) }},
	{"binary", false, false, func(r *runner, c *sqlCase) { r.steps(c, func(c *client, s *step) { c.bound(s, 1) }) }},
	{"portal", true, false, func(r *runner, c *sqlCase) {
		m := describedRun(c.steps[0].sql, 0)
		p := m[3].(*pgproto3.Execute)
		p.MaxRows = 1
		one := r.main()
		one.send(append(m[:4:4], p, p, &pgproto3.Execute{}, &pgproto3.Sync{})...)
		one.answer(1, "")
	}},
	{"prepared", true, false, func(r *runner, c *sqlCase) {
		r.each(`PREPARE spied AS `+c.steps[0].sql, `EXECUTE spied`, `DEALLOCATE ALL`)
	}},
	{"cursor", true, false, func(r *runner, c *sqlCase) {
		r.each(`BEGIN`, `DECLARE spied SCROLL CURSOR FOR `+c.steps[0].sql, `FETCH 1 FROM spied`, `MOVE 1 IN spied`, `FETCH ALL FROM spied`, `FETCH BACKWARD 2 FROM spied`, `ROLLBACK`)
	}},
	{"binary cursor", true, false, func(r *runner, c *sqlCase) {
		r.each(`BEGIN`, `DECLARE spied BINARY CURSOR FOR `+c.steps[0].sql, `FETCH ALL FROM spied`, `ROLLBACK`)
	}},
	{"copy", true, true, func(r *runner, c *sqlCase) { r.each(`COPY (` + c.steps[0].sql + "\n) TO STDOUT") }},
	{"copy csv", true, true, func(r *runner, c *sqlCase) {
		r.each(`COPY (` + c.steps[0].sql + "\n) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)")
	}},
	{"copy binary", true, true, func(r *runner, c *sqlCase) { r.each(`COPY (` + c.steps[0].sql + "\n) TO STDOUT (FORMAT binary)") }},
	{"created", true, false, func(r *runner, c *sqlCase) {
		r.each(`BEGIN`, `CREATE TABLE sandbox.spied AS `+c.steps[0].sql, `TABLE sandbox.spied`, `ROLLBACK`)
	}},
}

func (c *client) simple(s *step) {
	if s.bound {
		c.bound(s, 0)
		return
	}
	c.send(&pgproto3.Query{String: s.sql})
	c.answer(1, s.rows)
}

func (c *client) bound(s *step, format int16) {
	c.send(describedRun(s.sql, format, s.values...)...)
	c.answer(1, s.rows)
}

// runner runs one case in one way with one database, through Weir or round it.
type runner struct {
	t        *testing.T
	db       string
	direct   bool
	who      string
	startup  []string
	clients  map[string]*client // by person
	reusable *client            // of the single cases of the same person
}

func (r *runner) main() *client { return r.client(r.who) }

func (r *runner) client(who string) *client {
	if c := r.clients[who]; c != nil {
		return c
	}
	var c *client
	switch {
	case who == r.who && r.reusable != nil:
		c = r.reusable
		c.seen = nil
	case r.direct:
		c = direct(r.t, loginOf(who), r.db, r.startup...)
	default:
		c = through(r.t, who, r.db, r.startup...)
	}
	r.clients[who] = c
	return c
}

func (r *runner) each(texts ...string) {
	c := r.main()
	for _, sql := range texts {
		c.send(&pgproto3.Query{String: sql})
		c.answer(1, "")
	}
}

// steps runs the statements of a case one by one, those of a pipeline in one batch.
func (r *runner) steps(c *sqlCase, do func(*client, *step)) {
	for i := 0; i < len(c.steps); i++ {
		s := &c.steps[i]
		switch {
		case s.direct:
			if _, err := w.DB.Query(r.t.Context(), r.db, s.sql); err != nil {
				r.t.Errorf("%s: %v", c, err)
			}
		case s.pipeline:
			var batch sent
			for ; i < len(c.steps); i++ {
				m := describedRun(c.steps[i].sql, 0, c.steps[i].values...)
				batch = append(append(batch, m[:4]...), &pgproto3.Flush{})
			}
			one := r.main()
			one.send(append(batch, &pgproto3.Sync{})...)
			one.answer(1, "")
		case s.who != "":
			do(r.client(s.who), s)
		default:
			do(r.main(), s)
		}
	}
}

// seen is all that came back, by person.
func (r *runner) seen() []byte {
	var out []byte
	for _, who := range sorted(r.clients) {
		out = append(out, r.clients[who].seen...)
	}
	return out
}

func sorted[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// finish gives the sessions back to the state that they were made in, or ends them.
func (r *runner) finish(keep bool) {
	for who, c := range r.clients {
		if keep && c == r.reusable {
			seen := c.seen
			if status(c.query(`ROLLBACK`)) != 'I' {
				c.close()
				r.reusable = nil
			}
			c.seen = seen
			continue
		}
		c.close()
		if c == r.reusable {
			r.reusable = nil
		}
		_ = who
	}
}

// rowsOf reports whether a statement is a query that returns rows.
func rowsOf(sql string) bool {
	word := strings.ToUpper(strings.TrimLeft(sql, " (\n"))
	for _, w := range []string{"SELECT", "TABLE", "VALUES", "WITH"} {
		if strings.HasPrefix(word, w) {
			return true
		}
	}
	return false
}

// waysOf are the ways that a case can be run in.
func waysOf(c *sqlCase) (out []way) {
	only := c.keys["ways"]
	for _, w := range attackWays {
		if w.rows && !(c.single() && rowsOf(c.steps[0].sql) && !c.steps[0].bound) {
			continue
		}
		if only != "" && !slices.Contains(strings.Split(only, ", "), w.name) {
			continue
		}
		if len(c.steps) > 0 && slices.ContainsFunc(c.steps, func(s step) bool { return s.pipeline }) && w.name != "simple" {
			continue
		}
		out = append(out, w)
	}
	return out
}

// outcome is what one case did in one way, on one side.
type outcome struct {
	seen    []byte
	refused string
	took    time.Duration
}

// lasting are statements that change a session beyond its transaction.
var lasting = regexp.MustCompile(`(?i)advisory|set_config|setseed|^set |listen|pl_setting|dblink`)

// spy keeps one session for each person, side and road, for cases of one statement.
type spy struct {
	t    *testing.T
	pool map[string]*client
	told string // the end of what the server itself said last
}

func (s *spy) run(c *sqlCase, who string, way *way, side int, isDirect bool) outcome {
	r := &runner{t: s.t, db: sides[side], direct: isDirect, who: who, clients: map[string]*client{}}
	if p := c.keys["startup"]; p != "" {
		name, value, _ := strings.Cut(p, "=")
		r.startup = []string{name, value}
	}
	key := fmt.Sprint(r.who, side, isDirect)
	keep := c.single() && r.startup == nil && !lasting.MatchString(c.steps[0].sql)
	if keep {
		r.reusable = s.pool[key]
	}
	start := time.Now()
	way.run(r, c)
	took := time.Since(start)
	if keep {
		r.reusable = r.clients[r.who]
	}
	out := outcome{seen: r.seen(), took: took}
	out.refused = refusedBy(split(out.seen))
	r.finish(keep)
	if keep {
		s.pool[key] = r.reusable
	}
	if undo := c.keys["undo"]; undo != "" {
		if _, err := w.DB.Query(s.t.Context(), sides[side], undo); err != nil {
			s.t.Errorf("%s: undo: %v", c, err)
		}
	}
	return out
}

// noise is what may differ between two runs of one statement: the clock, the names of
// the databases, processes.
var noise = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`vault_[lr]`), "vault_x"},
	{regexp.MustCompile(`weir:[0-9A-Z]{26}`), "weir:FLOW"},
	{regexp.MustCompile(`((?:[Tt]ime|actual|time)[^0-9\n]{1,24})[0-9]+\.[0-9]{3}(\.\.[0-9]+\.[0-9]{3})?`), "${1}0.000"},
	{regexp.MustCompile(`(>|: )[0-9]+\.[0-9]{3}([<,\n]|$)`), "${1}0.000$2"},
	{regexp.MustCompile(`Memory( Usage)?"?: [0-9]+ ?(kB)?`), "Memory: 0kB"},
}

// normal is what came back without that noise: message by message, since the length of
// a message changes with it.
func normal(seen []byte) []byte {
	var out []byte
	for _, m := range split(seen) {
		body := m.body
		if m.kind == 'A' && len(body) > 4 {
			body = body[4:] // who notified
		}
		if m.kind == 'K' {
			body = nil
		}
		if m.kind == 'T' {
			body = described(body)
		}
		for _, n := range noise {
			body = n.what.ReplaceAll(body, []byte(n.with))
		}
		if m.kind == 'D' { // whose values have lengths of their own
			body = nil
			for _, v := range rowValues(m.body) {
				for _, n := range noise {
					v = n.what.ReplaceAll(v, []byte(n.with))
				}
				body = fmt.Appendf(body, "[%d %v]%s", len(v), v == nil, v)
			}
		}
		out = append(append(append(out, m.kind, ' '), body...), '\n')
	}
	return out
}

// described is a RowDescription without the OIDs of what tests made: they differ from
// run to run.
func described(body []byte) []byte {
	out := bytes.Clone(body)
	for at := 2; at < len(out); {
		n := bytes.IndexByte(out[at:], 0)
		if n < 0 || at+n+19 > len(out) {
			break
		}
		at += n + 1
		for _, field := range [][]byte{out[at : at+4], out[at+6 : at+10]} {
			if binary.BigEndian.Uint32(field) > w.lastOID {
				clear(field)
			}
		}
		at += 18
	}
	return out
}

// late is how much longer a statement must take for one value than for another to
// count as an answer.
const late = 700 * time.Millisecond

// tells says what two runs give away whose databases differ in the planted values
// alone; "" is nothing.
func tells(c *sqlCase, left, right outcome) string {
	for side, o := range []outcome{left, right} {
		if s := w.detector.find(o.seen); s != "" {
			return fmt.Sprintf("%s shows in %s", s, sides[side])
		}
	}
	compare := c.keys["compare"]
	if compare != "no" && !(compare == "unless refused" && left.refused != "" && right.refused != "") {
		if l, r := normal(left.seen), normal(right.seen); !bytes.Equal(l, r) {
			return "the answer depends on the masked values: " + difference(l, r)
		}
	}
	if c.keys["takes"] == "timing" && (left.refused == "" || right.refused == "") {
		if d := left.took - right.took; d > late || -d > late {
			return fmt.Sprintf("the time depends on the masked values: %v and %v", left.took, right.took)
		}
	}
	return ""
}

func difference(l, r []byte) string {
	i := 0
	for i < len(l) && i < len(r) && l[i] == r[i] {
		i++
	}
	cut := func(b []byte) string { return fmt.Sprintf("%.160q", b[max(0, min(i, len(b))-40):]) }
	return cut(l) + " and " + cut(r)
}

// TestAttacks runs the corpus: no planted value may come back in any form, and what
// comes back must not depend on them: two databases that differ in nothing else give
// the same bytes. Each attack must work when Weir is not in its way.
func TestAttacks(t *testing.T) {
	byFile := map[string][]*sqlCase{}
	var files []string
	for _, c := range loadCorpus(t, "attacks") {
		if byFile[c.file] == nil {
			files = append(files, c.file)
		}
		byFile[c.file] = append(byFile[c.file], c)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(f, ".sql"), func(t *testing.T) {
			s := &spy{t: t, pool: map[string]*client{}}
			for _, c := range byFile[f] {
				t.Run(c.name, func(t *testing.T) { s.attack(t, c) })
			}
		})
	}
}

func (s *spy) attack(t *testing.T, c *sqlCase) {
	n := count{cases: 1}
	defer func() { results.add("attacks", c.keys["class"], n) }()
	bites := ""
	for _, who := range strings.Fields(c.keys["who"]) {
		bites = firstOf(bites, s.attackAs(t, c, who, &n))
	}
	if c.keys["open"] != "" && n.leaks == 0 {
		t.Errorf("leaks no more: take \"open\" out of it\n%s", c.text())
	}
	if dull := c.keys["dull"]; bites == "" && dull == "" {
		t.Errorf("the server itself tells nothing: this is no attack\n%s%s", c.text(), s.told)
	} else if bites != "" && dull != "" && c.keys["compare"] != "no" {
		t.Errorf("said to be dull (%s), but %s", dull, bites)
	}
}

// attackAs runs a case in all ways as somebody, and says what it brings out of the
// server itself.
func (s *spy) attackAs(t *testing.T, c *sqlCase, who string, n *count) (bites string) {
	ways := waysOf(c)
	for i := range ways {
		way := &ways[i]
		if bites == "" {
			l, r := s.run(c, who, way, 0, true), s.run(c, who, way, 1, true)
			bites, s.told = tells(c, l, r), show(tail(split(l.seen), 6))
		}
		l, r := s.run(c, who, way, 0, false), s.run(c, who, way, 1, false)
		n.runs++
		if l.refused != "" {
			n.refused++
		} else {
			n.answered++
		}
		if said := tells(c, l, r); said != "" {
			n.leaks++
			if why := c.keys["open"]; why != "" {
				t.Logf("OPEN LEAK (%s): %s: %s", why, way.name, said)
				continue
			}
			t.Errorf("%s: %s\n%s", way.name, said, c.text())
			t.Logf("left: %s", show(tail(split(l.seen), 4)))
		}
		switch want := c.key("want", "either"); {
		case want == "refused" && l.refused == "":
			t.Errorf("%s: not refused\n%s%s", way.name, c.text(), show(tail(split(l.seen), 4)))
		case want == "masked" && l.refused != "" && way.name != "created":
			t.Errorf("%s: refused: %s\n%s", way.name, l.refused, c.text())
		}
	}
	return bites
}

func tail(all []message, n int) []message { return all[max(0, len(all)-n):] }

// text is the case's SQL, for messages.
func (c *sqlCase) text() string {
	var b strings.Builder
	for _, s := range c.steps {
		b.WriteString(s.sql + ";\n")
	}
	return b.String()
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
