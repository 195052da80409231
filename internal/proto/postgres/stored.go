package postgres

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// A mask hides a column's values under the column's name. A statement that stores
// them in another relation would bring them to where no mask hides them, so it is
// refused for who may not see them. The test is that of a result column about which
// the server says nothing (carries). Values that the client itself sends are its own.

// forbids says why a statement must not run under the masks, "" when it may.
func (m *maskSet) forbids(st *sqlmeta.Statement) string {
	if !m.any() || !slices.ContainsFunc(st.Stored, m.carries) {
		return ""
	}
	what := "mask"
	if len(m.names) > 1 {
		what = "masks"
	}
	return fmt.Sprintf("this %s would store values that %s %s hides from you in another table; ask somebody who may see them to do it, or whoever keeps weir's policy",
		st.Tag, what, strings.Join(m.names, ", "))
}

// addName notes a mask that has columns.
func (m *maskSet) addName(name string) {
	if name = strconv.Quote(name); !slices.Contains(m.names, name) {
		m.names = append(m.names, name)
	}
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
