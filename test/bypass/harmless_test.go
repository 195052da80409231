package bypass

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
)

// harmlessWays are how each harmless statement goes to the server.
var harmlessWays = []struct {
	name string
	do   func(c *client, s *step)
}{
	{"simple", (*client).simple},
	{"text", func(c *client, s *step) { c.bound(s, 0) }},
	{"binary", func(c *client, s *step) { c.bound(s, 1) }},
}

// differs is what may differ between two sessions that do the same.
var differs = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`weir:[0-9A-Za-z_./@:-]+`), "weir"},
	{regexp.MustCompile(`((?:[Tt]ime|actual time)[^0-9\n]{1,24})[0-9]+\.[0-9]{3}(\.\.[0-9]+\.[0-9]{3})?`), "${1}0.000"},
}

// names stand in a harmless statement for what is known at run time only: {oid:shop.orders}.
var oidName = regexp.MustCompile(`\{oid:([a-z_.]+)\}`)

// floors: so many cases there are at least. Cases are added, not taken away.
const harmlessFloor = 160

// TestHarmless runs the inverse corpus: what psql, drivers, ORMs, migrations and BI
// tools send passes as it is, gives the same bytes as without Weir, and nothing is
// masked in it. Masks are on, for everybody.
func TestHarmless(t *testing.T) {
	byFile := map[string][]*sqlCase{}
	n := 0
	for _, c := range loadCorpus(t, "harmless") {
		byFile[c.file] = append(byFile[c.file], c)
		n++
	}
	if n < harmlessFloor {
		t.Errorf("%d harmless statements, want at least %d", n, harmlessFloor)
	}
	oids := map[string]string{}
	start := time.Now()
	for _, f := range sorted(byFile) {
		t.Run(strings.TrimSuffix(f, ".sql"), func(t *testing.T) {
			for _, c := range byFile[f] {
				for i := range c.steps {
					c.steps[i].sql = oidName.ReplaceAllStringFunc(c.steps[i].sql, func(m string) string { return oidOf(t, oids, m[5:len(m)-1]) })
				}
			}
			for _, way := range harmlessWays {
				t.Run(way.name, func(t *testing.T) { runHarmless(t, byFile[f], way.name, way.do) })
			}
			if n := len(byFile[f]); !t.Failed() {
				results.add("harmless", strings.TrimSuffix(f, ".sql"), count{cases: n, runs: n * len(harmlessWays), answered: n * len(harmlessWays)})
			}
		})
	}
	nothingMasked(t, start, harmlessFloor)
}

func oidOf(t *testing.T, known map[string]string, name string) string {
	t.Helper()
	if known[name] == "" {
		out, err := w.DB.Query(t.Context(), sides[0], fmt.Sprintf("SELECT coalesce(to_regclass('%[1]s')::oid, to_regproc('%[1]s')::oid, to_regtype('%[1]s')::oid)", name))
		if err != nil || strings.TrimSpace(out) == "" {
			t.Fatalf("no OID of %s: %q %v", name, out, err)
		}
		known[name] = strings.TrimSpace(out)
	}
	return known[name]
}

// pair is a session through Weir and one round it, with what the server logs of them.
type pair struct {
	sides [2]*client
	pids  [2]string
}

func newPair(t *testing.T, who string, params ...string) *pair {
	t.Helper()
	p := &pair{sides: [2]*client{through(t, who, sides[0], params...), direct(t, loginOf(who), sides[0], params...)}}
	for i, c := range p.sides {
		c.query("SELECT pg_backend_pid()")
		for _, m := range split(c.seen) {
			if m.kind == 'D' {
				p.pids[i] = string(rowValues(m.body)[0])
			}
		}
	}
	return p
}

func runHarmless(t *testing.T, cases []*sqlCase, way string, do func(*client, *step)) {
	pairs := map[string]*pair{}
	for _, c := range cases {
		if only := c.keys["ways"]; only != "" && !slices.Contains(strings.Split(only, ", "), way) {
			continue
		}
		for _, who := range strings.Fields(c.keys["who"]) {
			key := who + " " + c.keys["startup"]
			p := pairs[key]
			if p == nil {
				var params []string
				if name, value, ok := strings.Cut(c.keys["startup"], "="); ok {
					params = []string{name, value}
				}
				p = newPair(t, who, params...)
				pairs[key] = p
			}
			var seen [2][]byte
			for i, one := range p.sides {
				one.seen = nil
				for s := range c.steps {
					do(one, &c.steps[s])
				}
				seen[i] = one.seen
				one.query("ROLLBACK")
			}
			compareHarmless(t, c, who, seen)
		}
	}
	for _, key := range sorted(pairs) {
		compareStatements(t, key, pairs[key])
	}
}

// compareHarmless: the same came back, and it is an answer.
func compareHarmless(t *testing.T, c *sqlCase, who string, seen [2][]byte) {
	t.Helper()
	if f := failure(split(seen[1])); f != "" && c.keys["want"] != "error" {
		t.Errorf("%s as %s: the server itself says %s\n%s", c, who, f, c.text())
	}
	if f := refusedBy(split(seen[0])); f != "" {
		t.Errorf("%s as %s: refused: %s\n%s", c, who, f, c.text())
		return
	}
	var except *regexp.Regexp
	if e := c.keys["except"]; e != "" {
		except = regexp.MustCompile(e)
	}
	through, round := sameText(seen[0], except, made.MatchString(c.text())), sameText(seen[1], except, made.MatchString(c.text()))
	if !bytes.Equal(through, round) {
		t.Errorf("%s as %s: not the same: %s\n%s", c, who, difference(through, round), c.text())
	}
}

// sameText is what came back without what must differ, message by message.
func sameText(seen []byte, except *regexp.Regexp, makes bool) []byte {
	change := func(v []byte) []byte {
		for _, d := range differs {
			v = d.what.ReplaceAll(v, []byte(d.with))
		}
		if except != nil {
			v = except.ReplaceAll(v, nil)
		}
		return v
	}
	var out []byte
	for _, m := range split(seen) {
		out = append(out, m.kind, ' ')
		if m.kind == 'T' && makes {
			m.body = withoutRelations(m.body)
		}
		if m.kind != 'D' {
			out = append(append(out, change(m.body)...), '\n')
			continue
		}
		for _, v := range rowValues(m.body) {
			out = fmt.Appendf(out, "[%v]%s", v == nil, change(v))
		}
		out = append(out, '\n')
	}
	return out
}

// made are cases that make relations: each time they have another OID.
var made = regexp.MustCompile(`(?i)CREATE (TABLE|VIEW)`)

// withoutRelations is a RowDescription without the OIDs of tables.
func withoutRelations(body []byte) []byte {
	var d pgproto3.RowDescription
	if d.Decode(body) != nil {
		return body
	}
	for i := range d.Fields {
		d.Fields[i].TableOID = 0
	}
	b, err := d.Encode(nil)
	if err != nil {
		return body
	}
	return b
}

// compareStatements: the server saw the same texts in the same order.
func compareStatements(t *testing.T, key string, p *pair) {
	t.Helper()
	var logged [2][]string
	for i, c := range p.sides {
		c.close()
		logged[i] = statementsOf(serverLog(t), p.pids[i])
	}
	if len(logged[1]) < 2 {
		t.Errorf("%s: the server logged nothing of backend %s", key, p.pids[1])
	}
	for i := range min(len(logged[0]), len(logged[1])) {
		if logged[0][i] != logged[1][i] {
			t.Errorf("%s: the server saw %q through Weir and %q without", key, logged[0][i], logged[1][i])
			return
		}
	}
	if len(logged[0]) != len(logged[1]) {
		t.Errorf("%s: the server saw %d statements through Weir and %d without", key, len(logged[0]), len(logged[1]))
	}
}

// statementsOf are the texts that the server logged of a backend.
func statementsOf(log, pid string) (all []string) {
	mine := false
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "\t") {
			if mine {
				all[len(all)-1] += line
			}
			continue
		}
		mine = false
		head, rest, ok := strings.Cut(line, "] LOG:  ")
		if !ok || !strings.HasPrefix(head, "["+pid+"|") {
			continue
		}
		kind, text, ok := strings.Cut(rest, ": ")
		if ok && (kind == "statement" || strings.HasPrefix(kind, "execute ")) {
			all, mine = append(all, text), true
		}
	}
	return all
}

// nothingMasked: no outcome since then counts a mask.
func nothingMasked(t *testing.T, since time.Time, least int) {
	t.Helper()
	events, err := w.Node.Events(t.Context(), "--kind", "action", "--from", since.UTC().Format(time.RFC3339Nano))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	outcomes := 0
	for _, e := range events {
		action, _ := e["action"].(map[string]any)
		id, _ := action["id"].(string)
		switch action["phase"] {
		case "intent":
			texts[id], _ = action["text"].(string)
			if e["verdict"] != "allow" {
				t.Errorf("%v: %v: %s", e["verdict"], e["reason"], texts[id])
			}
		case "outcome":
			outcomes++
			if m, ok := e["masks"]; ok {
				t.Errorf("masks are counted, %v: %s", m, texts[id])
			}
		}
	}
	if outcomes < least {
		t.Errorf("%d outcomes are recorded", outcomes)
	}
}

// psqlCommands are run by psql itself, which sends what its version sends.
var psqlCommands = []string{
	`\d`, `\d+`, `\d shop.orders`, `\d+ shop.orders`, `\d shop.payments`, `\d+ vault.cards`, `\d vault.v_nested`, `\d+ vault.v_nested`, `\d+ vault.parts`,
	`\d vault.parts_low`, `\d+ vault.child`, `\d vault.cards_card`, `\d vault.seq`, `\d+ vault.m_cards`, `\d vault.f_cards`, `\d vault.pair`, `\d+ vault.noisy`, `\d+ vault.ruled`,
	`\dt`, `\dt+`, `\dt shop.*`, `\dt+ *.*`, `\dv`, `\dv+ vault.*`, `\dm+ vault.*`, `\di`, `\di+ shop.*`, `\ds+ vault.*`, `\dE vault.*`, `\dtvs shop.*`,
	`\df`, `\df+ vault.*`, `\df shop.*`, `\da vault.*`, `\dfp vault.*`, `\dft vault.*`, `\do vault.*`, `\dn`, `\dn+`, `\du`, `\du+`, `\dg`, `\drds`,
	`\dT`, `\dT+ vault.*`, `\dD vault.*`, `\dp`, `\dp shop.*`, `\z vault.*`, `\ddp`, `\l`, `\l+`, `\dx`, `\dx+ hstore`, `\dy`, `\dO`, `\dO+`, `\dc`, `\dc+`, `\dC`, `\dC+`,
	`\dF`, `\dF+`, `\dFd`, `\dFp`, `\dFt`, `\dL`, `\dL+`, `\db`, `\dA`, `\dAc`, `\dAf`, `\dAo`, `\dAp`, `\dd vault.*`, `\des`, `\det vault.*`, `\dew`, `\dX`, `\dRp`,
	`\dP`, `\dP+ vault.*`, `\sf vault.card_of`, `\sf+ vault.pl_assign`, `\sv vault.v_nested`, `\sv+ vault.v_union`, `\encoding`, `\h SELECT`,
}

// TestHarmlessPsql: psql's own commands print the same through Weir.
func TestHarmlessPsql(t *testing.T) {
	start := time.Now()
	var script strings.Builder
	for _, c := range psqlCommands {
		fmt.Fprintf(&script, "\\qecho == '%s'\n%s\n", strings.ReplaceAll(c, `\`, `/`), c)
	}
	file := filepath.Join(w.Dir, "out", "harmless.psql")
	if err := os.WriteFile(file, []byte(script.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-X", "-U", "weir_app", "-d", sides[0], "-f", file}
	got, want := program(t, "ann", "psql", args...), roundWeir(t, "psql", args...)
	if !strings.Contains(want, "== /h SELECT") || strings.Count(want, "\n") < 1000 {
		t.Errorf("psql itself did not come to the end: %s", want[max(0, len(want)-500):])
	}
	sameOutput(t, got, want)
	nothingMasked(t, start, 50)
}

// sameOutput compares two programs' outputs line by line.
func sameOutput(t *testing.T, got, want string) {
	t.Helper()
	g, x := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(x)) {
		if g[i] != x[i] {
			t.Fatalf("line %d: %q through Weir, %q without\nbefore it %q", i+1, g[i], x[i], g[max(0, i-5):i])
		}
	}
	if len(g) != len(x) {
		t.Fatalf("%d lines through Weir, %d without; the end: %q", len(g), len(x), g[max(0, len(g)-5):])
	}
}

// program runs one as somebody, through Weir.
func program(t *testing.T, who, name string, args ...string) string {
	t.Helper()
	cmd := w.Node.As(t.Context(), w.Files[who], name, append([]string{"-h", "127.0.0.1", "-p", fmt.Sprint(w.DB.Port)}, args...)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=30")
	out, err := w.Node.Run(cmd)
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out[max(0, len(out)-1500):])
	}
	return out
}

// roundWeir runs the same over the server's private socket.
func roundWeir(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, append([]string{"-h", w.DB.Socket, "-p", fmt.Sprint(w.DB.Port)}, args...)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// dumpUnrestricted are lines of a dump that are made up for each run.
var dumpUnrestricted = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

// TestHarmlessDump: pg_dump --schema-only as a whole program, of schemas. Besides the
// catalogue and LOCK TABLE ... IN ACCESS SHARE MODE (lock on each table) it needs select
// on pg_settings and pg_subscription, which hold more than a developer may see, and sets a
// setting whose name it reads from pg_settings: that is unknown to Weir. For a whole
// database with foreign servers it reads pg_user_mappings too, where passwords are.
func TestHarmlessDump(t *testing.T) {
	start := time.Now()
	args := []string{"-U", "weir_app", "--schema-only", "-n", "shop", "-n", "vault", sides[0]}
	got, want := program(t, "dum", "pg_dump", args...), roundWeir(t, "pg_dump", args...)
	got, want = dumpUnrestricted.ReplaceAllString(got, ""), dumpUnrestricted.ReplaceAllString(want, "")
	if strings.Count(want, "CREATE TABLE") < 20 {
		t.Errorf("pg_dump itself dumped %d tables", strings.Count(want, "CREATE TABLE"))
	}
	sameOutput(t, got, want)
	nothingMasked(t, start, 50)
}
