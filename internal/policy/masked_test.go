package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
)

// masking is an analyser of "select TABLE" whose masks do what m says; it notes the
// masks that it was asked about.
func masking(m Masked, seen *[]string) Analyser {
	return func(_, sql string) ([]Analysed, error) {
		var list []Analysed
		for _, s := range strings.Split(sql, ";") {
			verb, resource, _ := strings.Cut(strings.TrimSpace(s), " ")
			a := Analysed{Action: flow.Action{Text: s, Accesses: []flow.Access{{Verb: flow.Verb(verb), Resource: resource}}}}
			a.Masked = func(masks []*Mask) (Masked, error) {
				for _, m := range masks {
					*seen = append(*seen, m.Name)
				}
				if resource == "shop.broken" {
					return Masked{}, errors.New("no catalogue")
				}
				return m, nil
			}
			list = append(list, a)
		}
		return list, nil
	}
}

func TestCasesCoverMasks(t *testing.T) {
	text := `policies:
  - name: p
    backends: [db]
    rules: [{name: read, actions: [select], resources: ["shop.*"], effect: allow}]
    masks:
      - {name: cards, columns: ["shop.payments.card_number"], with: last4}
      - {name: notes, columns: ["shop.payments.note"], with: redact, unless_groups: [dba]}
    tests:
`
	m := Masked{Columns: []MaskedColumn{
		{Position: 1, Name: "id", Carries: "shop.payments.id"},
		{Position: 2, Name: "c", Carries: "computed from shop.payments.card_number", Mask: "cards", Method: "redact", Source: "lineage"},
		{Position: 3, Carries: "shop.payments.card_number", Mask: "cards", Method: "last4", Source: "lineage"},
		{Position: 4, Name: "twice", Carries: "no column"}, {Position: 5, Name: "twice", Carries: "no column"},
		{Position: 7, Name: "row", Carries: "shop.payments.*", Source: SourceUnknown},
	}}
	refusing := Masked{Refused: `mask "cards" hides shop.payments.card_number from you`, RefusedBy: "cards"}
	var greedy Masked
	greedy.Spend([]flow.Spend{{Policy: "p", Mask: "cards", Column: "shop.payments.card_number", Tests: 21, Limit: 20, Per: time.Hour}})
	for _, c := range []struct {
		masked Masked
		test   string
		got    flow.Verdict
		reason string // of a failure; "" when the case holds
	}{
		{m, `{user: u, sql: "select shop.payments", expect: allow, masks: {id: none, c: redact, 3: last4, "4": none}}`, flow.Allow, ""},
		{m, `{user: u, sql: "select shop.payments", expect: allow, masks: {c: last4}}`, flow.Allow,
			`column 2 "c": computed from shop.payments.card_number -> redacted by mask "cards"; the test wants last4`},
		{m, `{user: u, sql: "select shop.payments", expect: allow, masks: {id: redact}}`, flow.Allow, `column 1 "id": shop.payments.id -> as it is; the test wants redact`},
		{m, `{user: u, sql: "select shop.payments", expect: allow, masks: {row: none}}`, flow.Allow,
			`column 7 "row": shop.payments.* -> whatever masks make of the columns of the row, which are not known; the test wants none`},
		{m, `{user: u, sql: "select shop.payments", expect: allow, masks: {nome: none}}`, flow.Allow, `the text shows no column "nome" of the result`},
		{m, `{user: u, sql: "select shop.payments", expect: allow, masks: {6: none}}`, flow.Allow, `the text shows no column "6" of the result`},
		{m, `{user: u, sql: "select shop.payments", expect: allow, masks: {twice: none}}`, flow.Allow, `the result has several columns "twice"; name them by position, from 1`},
		{m, `{user: u, sql: "select shop.payments; select shop.orders", expect: allow, masks: {id: none}}`, flow.Allow, "masks: and refused: are about one statement, and this is several"},
		{refusing, `{user: u, sql: "select shop.payments", expect: deny}`, flow.Deny, ""},
		{refusing, `{user: u, sql: "select shop.payments", expect: deny, rule: cards, refused: "hides shop.payments"}`, flow.Deny, ""},
		{refusing, `{user: u, sql: "select shop.payments", expect: deny, refused: "would store"}`, flow.Deny, `masks do not refuse it with "would store" but with "mask \"cards\" hides shop.payments.card_number from you"`},
		{m, `{user: u, sql: "select hr.x", expect: deny, refused: "hides"}`, flow.Deny, `masks do not refuse it with "hides" but with ""`},
		{refusing, `{user: u, sql: "select shop.payments", expect: allow}`, flow.Deny, `mask "cards" hides shop.payments.card_number from you`},
		{greedy, `{user: u, sql: "select shop.payments", expect: deny, rule: cards, refused: "20 times in 1h, and this takes 21"}`, flow.Deny, ""},
		{m, `{user: u, sql: "select shop.broken", expect: allow}`, "", "what masks do cannot be told: no catalogue"},
	} {
		s := mustCompile(t, text+"      - "+c.test+"\n")
		var seen []string
		r := RunTests(s, masking(c.masked, &seen), nil, noon)[0]
		if r.OK != (c.reason == "") || r.Got != c.got || c.reason != "" && r.Reason != c.reason {
			t.Errorf("%s:\n%t %s: %s", c.test, r.OK, r.Got, r.Reason)
		}
	}
	var seen []string
	s := mustCompile(t, text+"      - {user: d, groups: [dba], sql: \"select shop.payments\", expect: allow}\n")
	RunTests(s, masking(m, &seen), nil, noon)
	if diff := cmp.Diff([]string{"cards"}, seen); diff != "" {
		t.Errorf("masks of somebody who is spared one: %s", diff)
	}
	if r := RunTests(mustCompile(t, text+"      - {user: u, sql: \"select shop.x\", expect: allow, masks: {1: none}}\n"), analyse, nil, noon)[0]; r.OK || r.Reason != "what masks do cannot be told here" {
		t.Errorf("without an analyser that knows: %+v", r)
	}
}

func TestCasesOfMasksThatMakeNoSense(t *testing.T) {
	text := "policies:\n  - name: p\n    backends: [db]\n    tests:\n"
	for test, want := range map[string]string{
		`{user: u, action: "select a.b", expect: allow, masks: {a: none}}`: "masks and refused are about the result of sql",
		`{user: u, sql: x, expect: allow, masks: {a: last5}}`:              `"last5" is not known here; did you mean "last4"?`,
		`{user: u, sql: x, expect: deny, masks: {a: last4}}`:               "a statement that is refused has no result",
		`{user: u, sql: x, expect: allow, refused: x}`:                     "a statement that masks refuse is denied",
	} {
		_, err := Compile([]File{{Name: "p", Data: []byte(text + "      - " + test + "\n")}}, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", test, err)
		}
	}
}

// What explain says of masks, in words; a statement that they refuse is denied
// although its rules allow it.
func TestExplainMasks(t *testing.T) {
	s := mustCompile(t, `policies:
  - name: p
    backends: [db]
    rules: [{name: read, actions: [select], effect: allow}]
    masks: [{name: cards, columns: ["shop.payments.card_number"], with: last4}]
`)
	m := Masked{
		Columns: []MaskedColumn{
			{Position: 1, Name: "id", Carries: "shop.payments.id"},
			{Position: 2, Name: "c", Carries: "computed from shop.payments.card_number", Mask: "cards", Method: "redact", Source: "lineage"},
			{Carries: "what weir cannot follow (a view)", Method: "redact", Source: "unresolved"}},
		Tests: []TestedColumn{{"shop.payments.card_number", "equal", 2, "WHERE"}, {"shop.payments.id", "compare", 1, "ORDER BY"}},
		Notes: []string{"columns of * cannot be told"},
	}
	m.Spend([]flow.Spend{{Policy: "p", Mask: "cards", Column: "shop.payments.card_number", Tests: 2, Limit: 1000, Per: 24 * time.Hour}})
	explain := func(m Masked) string {
		var seen []string
		list, err := s.ExplainText(Input{Flow: &flow.Flow{Backend: "db"}, Now: noon}, "select shop.payments", nil, masking(m, &seen))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := list[0].WriteText(&b, false); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	golden(t, "testdata/masked.txt", explain(m))
	m.Refused, m.RefusedBy = `mask "cards" hides shop.payments.card_number from you`, "cards"
	golden(t, "testdata/refused.txt", explain(m))
}
