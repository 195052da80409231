package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/session"
)

// errorFrame is an ErrorResponse; each field is its kind and its value.
func errorFrame(fields ...string) []byte {
	f, mark := beginFrame(nil, srvError)
	for _, v := range fields {
		f = append(append(f, v...), 0)
	}
	return endFrame(append(f, 0), mark)
}

// TestMessagesWithheld: of what the server says about a statement that may touch a
// masked column only Weir's own words and what the catalogue names come through.
func TestMessagesWithheld(t *testing.T) {
	const secret = "dhiciccegdbaaaf"
	withheld := func(about string) string { return "M" + mask.Withheld + " (" + about + ")" }
	for name, c := range map[string]struct{ in, want []string }{
		"no quotation marks": {
			[]string{"SERROR", "VERROR", "C42883", "Moperator does not exist: " + secret, "D" + secret, "H" + secret, "Fregproc.c", "L1", "Rregoperin"},
			[]string{"SERROR", "VERROR", "C42883", withheld("42883 undefined_function"), "Fregproc.c", "L1", "Rregoperin"}},
		"constraint": {
			[]string{"SERROR", "C23505", `Mduplicate key value violates unique constraint "payments_pkey"`, "D" + secret, "sshop", "tpayments", "npayments_pkey", "Fnbtinsert.c"},
			[]string{"SERROR", "C23505", withheld("23505 unique_violation, constraint payments_pkey of payments"), "sshop", "tpayments", "npayments_pkey", "Fnbtinsert.c"}},
		"in COPY": {
			[]string{"SERROR", "C23502", "Mnull value", "D" + secret, "WCOPY payments, line 1: " + secret, "sshop", "tpayments", "camount"},
			[]string{"SERROR", "C23502", withheld("23502 not_null_violation, column amount of payments"), "sshop", "tpayments", "camount"}},
		"RAISE with names": {
			[]string{"SERROR", "C23505", "M" + secret, "WPL/pgSQL function f() line 1 at RAISE", "t" + secret, "c" + secret, "d" + secret, "n" + secret, "s" + secret},
			[]string{"SERROR", "C23505", withheld("23505 unique_violation")}},
		"RAISE": {
			[]string{"SERROR", "CP0001", "M" + secret, "n" + secret, "P12", "Fparse_x.c"},
			[]string{"SERROR", "CP0001", withheld("P0001 raise_exception"), "P12", "Fparse_x.c"}},
		"a text that the server made": {
			[]string{"SERROR", "C42601", "M" + secret, "p3", "q" + secret, "Wx", "Fscan.l", "Rscanner_yyerror"},
			[]string{"SERROR", "C42601", withheld("42601 syntax_error"), "Fscan.l", "Rscanner_yyerror"}},
		"the client's own text": {
			[]string{"SERROR", "C42703", `Mcolumn "card_nmber" does not exist`, "HPerhaps card_number.", "P8", "Fparse_relation.c"},
			[]string{"SERROR", "C42703", `Mcolumn "card_nmber" does not exist`, "HPerhaps card_number.", "P8", "Fparse_relation.c"}},
		"a position, not from the parser": {
			[]string{"SERROR", "C22P02", "M" + secret, "H" + secret, "P8", "Fnumutils.c"},
			[]string{"SERROR", "C22P02", withheld("22P02 invalid_text_representation"), "P8", "Fnumutils.c"}},
		"a whole message without a value": {
			[]string{"SERROR", "C57014", "Mcanceling statement due to statement timeout"},
			[]string{"SERROR", "C57014", "Mcanceling statement due to statement timeout"}},
		"kinds to come": {
			[]string{"SERROR", "C22012", "Mdivision by zero: " + secret, "y" + secret},
			[]string{"SERROR", "C22012", withheld("22012 division_by_zero")}},
	} {
		t.Run(name, func(t *testing.T) {
			w := fakeWorld(t)
			w.masks = cards
			withGate(t, w, func(g *session.Gate, grant session.Grant) {
				d := testEngine(t, w, g, grant)
				d.client(clientBytes("Q select card from shop.payments"))
				d.toClient = nil
				d.server(errorFrame(c.in...))
				if d.err != nil {
					t.Fatal(d.err)
				}
				if len(d.toClient) < headerLen || !validateServer(srvError, d.toClient[headerLen:]) {
					t.Fatalf("%q is no error", d.toClient)
				}
				var got []string
				fieldsOf(d.toClient[headerLen:], func(kind byte, v []byte) { got = append(got, string(kind)+string(v)) })
				if !slices.Equal(got, c.want) {
					t.Errorf("\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				}
			})
		})
	}
}

// TestLateMessagesWithheld: a statement that reads nothing is blamed for what those
// before it put off.
func TestLateMessagesWithheld(t *testing.T) {
	const said = `value "4111" is out of range`
	withheld := "E 22003 " + mask.Withheld + " (22003 numeric_value_out_of_range)"
	for name, c := range map[string]struct{ client, before, want string }{
		"commit":                    {"Q commit", "", withheld},
		"last of several":           {"Q select card from shop.payments; select 1", "C SELECT 1 | ", withheld},
		"not the last":              {"Q select 1; select card from shop.payments", "", "E 22003 " + said},
		"several, none masked":      {"Q select 1; select 2", "C SELECT 1 | ", "E 22003 " + said},
		"what is not masked, alone": {"Q select id from shop.orders", "", "E 22003 " + said},
		"Sync":                      {"P - select 1 | B - - | E - | S", "1 | 2 | n | C SELECT 1 | ", withheld},
	} {
		t.Run(name, func(t *testing.T) {
			w := fakeWorld(t)
			w.masks = cards
			withGate(t, w, func(g *session.Gate, grant session.Grant) {
				d := testEngine(t, w, g, grant)
				d.client(clientBytes(c.client))
				if c.before != "" {
					d.server(serverBytes(strings.TrimSuffix(c.before, " | ")))
				}
				d.toClient = nil
				d.server(serverBytes("E 22003 " + said))
				if got := serverScript(d.toClient); got != c.want || d.err != nil {
					t.Errorf("%s (%v), want %s", got, d.err, c.want)
				}
			})
		})
	}
}
