package sqlmeta

import (
	"fmt"
	"strings"
	"testing"
)

// TestWorkIsBounded: what is looked at again and again ends; the statement is then
// unknown.
func TestWorkIsBounded(t *testing.T) {
	c := newContext(lineageCatalog(t), "")
	deep := "select 1 as a"
	for i := range 12 {
		deep = fmt.Sprintf("with recursive r%d as (select 1 as a union all select a from (%s) q union all select a from r%d) select a from r%d", i, deep, i, i)
	}
	cases := "1"
	for range 60 {
		cases = "case " + cases + " when 1 then 2 when 2 then 3 when 3 then 4 when 4 then 5 end"
	}
	for name, sql := range map[string]string{"recursive": deep, "case": "select " + cases} {
		if st := mustAnalyze(sql, c)[0]; st.Problem != tooMuch {
			t.Errorf("%s: %q", name, st.Problem)
		}
	}
	for name, sql := range map[string]string{
		"values":     "insert into public.t values " + strings.Repeat("(1, 'x'), ", 50000) + "(1, 'x')",
		"conditions": "select 1 from shop.payments where " + strings.Repeat("id = 1 or ", 1000) + "id = 2",
		"in":         "select 1 from shop.payments where id in (" + strings.Repeat("1, ", 50000) + "2)",
		"concat":     "select card_number " + strings.Repeat("|| 'x' ", 1000) + " from shop.payments",
	} {
		if st := mustAnalyze(sql, c)[0]; st.Problem != "" {
			t.Errorf("%s: %q", name, st.Problem)
		}
	}
}
