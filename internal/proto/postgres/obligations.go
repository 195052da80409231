package postgres

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// A mask hides values in results. What else a statement can do with a masked column is
// here: store its values where no mask hides them, and find them out by testing them.

// obliges says why a statement must not run under the masks, "" when it may, and what
// it then takes out of their budgets.
func (m *maskSet) obliges(st *sqlmeta.Statement) (why string, spends []flow.Spend) {
	if m == nil || !m.byColumn {
		return "", nil
	}
	for i := range st.Stored {
		if why := m.stores(st, &st.Stored[i]); why != "" {
			return why, nil
		}
	}
	for i := range st.Tests {
		if why := m.tests(st, &st.Tests[i], &spends); why != "" {
			return why, nil
		}
	}
	if st.Effects.Prepare != "" { // it is tested when it is executed
		return "", nil
	}
	return "", spends
}

// stores: a statement that stores masked values in another column would bring them to
// where no mask hides them. Values that the client itself sends are its own.
func (m *maskSet) stores(st *sqlmeta.Statement, s *sqlmeta.Stored) string {
	info := m.lineage(&s.Lineage)
	own := s.Plain && s.Unknown == "" && len(s.Columns) == 1 && s.Columns[0].ColumnID == s.Target.ColumnID
	if info.method == 0 || own {
		return ""
	}
	if info.source == sourceUnresolved {
		return fmt.Sprintf("this %s would store in %s what weir cannot follow (%s), which may be values that masks hide from you; ask somebody who may see them to do it, or whoever keeps weir's policy",
			st.Tag, s.Target, s.Unknown)
	}
	return fmt.Sprintf("this %s would store values of %s, which mask %s hides from you, in %s; ask somebody who may see them to do it, or whoever keeps weir's policy",
		st.Tag, info.name, maskNames(info.masks), s.Target)
}

// tests: what a test of a masked column takes out of the masks' budgets, or why it may
// not be made.
func (m *maskSet) tests(st *sqlmeta.Statement, test *sqlmeta.Test, spends *[]flow.Spend) string {
	if test.Unknown != "" {
		return m.unknownTest(st, test)
	}
	masked, ok := m.masked(test.Column)
	if !ok {
		return ""
	}
	for _, p := range masked.masks {
		if why := refuses(p, masked.name, test); why != "" {
			return why
		}
		if p.Predicates != policy.PredicatesAllow {
			spend(spends, flow.Spend{Policy: p.Policy, Mask: p.Name, Column: masked.name, Tests: test.Count, Limit: p.Budget, Per: p.Per})
		}
	}
	return ""
}

// refuses says why a mask does not let a column be tested so.
func refuses(p *policy.Mask, column string, test *sqlmeta.Test) string {
	switch {
	case p.Predicates == policy.PredicatesAllow, test.Kind == sqlmeta.Equal:
		return ""
	case p.Predicates == policy.PredicatesBudget && test.Kind == sqlmeta.Compare:
		return ""
	case p.Predicates == policy.PredicatesBudget:
		return fmt.Sprintf("mask %s lets you test %s only against values that stand in the statement, and this (%s) tests it against other data, which could tell it whole; compare it with literals or bind parameters",
			strconv.Quote(p.Name), column, test.Where)
	}
	return fmt.Sprintf("mask %s hides %s from you, and this (%s) would tell about it; only equality with a literal or one bind parameter is allowed, as in WHERE column = $1; ask whoever keeps weir's policy if you need more",
		strconv.Quote(p.Name), column, test.Where)
}

// unknownTest: in a statement that has to do with masked columns, a test of what weir
// cannot follow may be one of them.
func (m *maskSet) unknownTest(st *sqlmeta.Statement, test *sqlmeta.Test) string {
	if !m.reads(st) {
		return ""
	}
	for _, p := range m.policies {
		if p.Predicates != policy.PredicatesAllow {
			return fmt.Sprintf("this statement reads columns that mask %s hides from you, and tests (%s) what weir cannot follow (%s); write it without that, or ask whoever keeps weir's policy",
				strconv.Quote(p.Name), test.Where, test.Unknown)
		}
	}
	return ""
}

// reads reports whether a statement names a relation with masked columns, or a view of
// one.
func (m *maskSet) reads(st *sqlmeta.Statement) bool {
	return slices.ContainsFunc(st.Accesses, func(a flow.Access) bool {
		_, ok := m.resources[a.Resource]
		return ok
	})
}

// spend adds to what is taken out of a budget.
func spend(list *[]flow.Spend, next flow.Spend) {
	for i := range *list {
		have := &(*list)[i]
		if have.Policy == next.Policy && have.Mask == next.Mask && have.Column == next.Column {
			have.Tests += next.Tests
			return
		}
	}
	*list = append(*list, next)
}

func maskNames(list []*policy.Mask) string {
	out := ""
	for i, p := range list {
		if i > 0 {
			out += ", "
		}
		out += strconv.Quote(p.Name)
	}
	return out
}

// under is the set for results of statements that ran under a doubt.
func (m *maskSet) under(d *doubt) *maskSet {
	if m == nil || d == nil {
		return m
	}
	own := *m
	own.doubt = d
	return &own
}
