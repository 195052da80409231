package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
)

// TestConditionsOnColumns: least privilege by column is a condition on what the
// statement touches, and a list as long as a wide table stays within the cost limit.
func TestConditionsOnColumns(t *testing.T) {
	wide := []string{`"shop.orders.id"`, `"shop.orders.total"`}
	for i := range 60 {
		wide = append(wide, fmt.Sprintf(`"shop.orders.a_column_with_a_long_name_%d"`, i))
	}
	list := "[" + strings.Join(wide, ", ") + "]"
	s := mustCompile(t, "policies:\n  - name: p\n    rules:\n"+
		"      - {name: read, actions: [select, call], effect: allow, when: 'action.columns_read.all(c, c in "+list+") && action.columns_tested.all(c, c in "+list+")'}\n"+
		"      - {name: write, actions: [update], effect: allow, when: '!action.columns_written.exists(c, c.endsWith(\".price\"))'}\n"+
		"      - {name: languages, actions: [call], effect: deny, when: 'action.languages.exists(l, l.endsWith(\"u\")) || action.security_definer'}\n")
	const read, update, call = flow.Select, flow.Update, flow.Call
	for _, c := range []struct {
		action flow.Action
		want   flow.Verdict
	}{
		{flow.Action{Accesses: []flow.Access{{Verb: read}}, Columns: flow.ColumnUse{Read: []string{"shop.orders.id"}}}, flow.Allow},
		{flow.Action{Accesses: []flow.Access{{Verb: read}}, Columns: flow.ColumnUse{Read: []string{"shop.orders.id", "shop.orders.note"}}}, flow.Deny},
		{flow.Action{Accesses: []flow.Access{{Verb: read}}, Columns: flow.ColumnUse{Read: []string{"shop.orders.*"}}}, flow.Deny},
		{flow.Action{Accesses: []flow.Access{{Verb: read}}, Columns: flow.ColumnUse{Tested: []string{"shop.orders.note"}}}, flow.Deny},
		{flow.Action{Accesses: []flow.Access{{Verb: update}}, Columns: flow.ColumnUse{Written: []string{"shop.orders.total"}}}, flow.Allow},
		{flow.Action{Accesses: []flow.Access{{Verb: update}}, Columns: flow.ColumnUse{Written: []string{"shop.orders.price"}}}, flow.Deny},
		{flow.Action{Accesses: []flow.Access{{Verb: call}}}, flow.Allow},
		{flow.Action{Accesses: []flow.Access{{Verb: call}}, Languages: []string{"plpgsql", "plpython3u"}}, flow.Deny},
		{flow.Action{Accesses: []flow.Access{{Verb: call}}, SecurityDefiner: true}, flow.Deny},
	} {
		if d := s.Decide(Input{Flow: &flow.Flow{Backend: "b", Protocol: flow.Postgres}, Action: &c.action, Now: noon}); d.Verdict != c.want {
			t.Errorf("%+v: %s (%s)", c.action, d.Verdict, d.Reason)
		}
	}
}
