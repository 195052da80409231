package sqlmeta

import (
	"errors"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

func TestGuard(t *testing.T) {
	deep := func(s string) string { return strings.Repeat(s, MaxDepth+1) }
	for name, c := range map[string]struct {
		sql  string
		want error
	}{
		"empty":             {"", nil},
		"below the limit":   {"select '" + strings.Repeat("x", MaxText-20) + "'", nil},
		"at the limit":      {strings.Repeat("x", MaxText), ErrTooLong},
		"NUL":               {"select 1\x00; drop table t", ErrNotText},
		"not UTF-8":         {"select '\xff'", ErrNotText},
		"half a character":  {"select '\xc3", ErrNotText},
		"parentheses":       {"select " + strings.Repeat("(", 100000) + "1" + strings.Repeat(")", 100000), ErrTooDeep},
		"plus":              {"select 1" + strings.Repeat("+1", 30000), ErrTooDeep},
		"plus with spaces":  {"select 1" + deep(" + 1"), ErrTooDeep},
		"plus with comment": {"select 1" + deep("/*,*/+1"), ErrTooDeep},
		"casts":             {"select 1" + deep("::int"), ErrTooDeep},
		"union":             {"select 1, 2" + deep(" union select 1, 2"), ErrTooDeep},
		"UNION ALL":         {"VALUES (1, 2)" + deep(" UNION ALL VALUES (1, 2)"), ErrTooDeep},
		"not":               {"select " + deep("not ") + "true", ErrTooDeep},
		"minus":             {"select " + deep("- ") + "1", ErrTooDeep},
		"array":             {"select " + deep("array[") + "1" + deep("]"), ErrTooDeep},
		"subqueries":        {deep("(select ") + "1" + deep(")"), ErrTooDeep},
		"case":              {"select " + deep("case when a then 1 else ") + "1" + deep(" end"), ErrTooDeep},
		"join":              {"select * from a" + deep(" join b using (x)"), ErrTooDeep},
		"subscripts in it":  {"select " + deep("a[") + "1" + deep("]"), ErrTooDeep},
		"deep in one row":   {"insert into t values (1, 2), (1, 2" + deep("+1") + "), (3, 4)", ErrTooDeep},
		"is null":           {"select 1" + deep(" is null"), ErrTooDeep},
		"many rows":         {"insert into t values " + strings.Repeat("(1, -2, now() + 3, 'x'), ", 20000) + "(1)", nil},
		"many columns":      {"select " + strings.Repeat("a + 1, ", 50000) + "b", nil},
		"many statements":   {strings.Repeat("select a + b from c where d = 1;", 20000), nil},
		"long in list":      {"select * from t where a in (" + strings.Repeat("1, ", 100000) + "2)", nil},
		"in a string":       {"select '" + strings.Repeat("(", 100000) + "'", nil},
		"in a dollar quote": {"select $x$" + strings.Repeat("(+", 100000) + "$x$", nil},
		"in a comment":      {"/*" + strings.Repeat("(", 100000) + "*/ select 1 --" + strings.Repeat("(", 100000), nil},
		"in an identifier":  {`select "` + strings.Repeat("(", 100000) + `"`, nil},
		"comment in string": {"select 'a' -- x\n'b'", ErrMisread},
		"no comment":        {"select 'a'\n'b' -- c", nil},
		"usual or chain":    {"select * from t where id = 1" + strings.Repeat(" or id = 1", 2000), nil},
	} {
		if err := Guard(c.sql); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

var lexed = []string{
	"select 1", "'it''s'", `E'it\'s' 'x'`, "'a'\n'b'", "E'a'\n'b\\'c'", "'a' -- x\n 'b'", "'a' 'b'", `U&'\0041''x' UESCAPE '!'`,
	`U&"d\0061ta" "a""b"`, "B'01' x'AF' N'x' n''", "$$a'b$$ $x$ $$ $y$ $x$", "$1 $2", "a$1$b", "1e10 .5 1. 1_000 0x1f", "a--b\n+c", "/* a /* b */ ' */ 'c'",
	"a<-1", "a@-- x\n-1", "a::text[1]", "x'", "'", `"`, "$x$", "/*", "--", `e'\`, "é'x'", "a.b.c(1)", "?|&`~", ":=", "=>", "1..2", "$a$$a$", "e'\\\n'\n'x'",
	"U&'x'\n'y'", "'a'\r'b'", "'a'\v'b'", "1'a'", "select'x'from", "u&x", "\"a\nb\"", "x''''y", "$é$x$é$", "a\u00a0b",
}

func TestLexer(t *testing.T) {
	for _, sql := range lexed {
		compareWithScanner(t, sql)
	}
}

// FuzzLexer: wherever PostgreSQL's scanner accepts a text, constants, quoted
// identifiers and comments begin and end where this one has them.
func FuzzLexer(f *testing.F) {
	for _, sql := range lexed {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 1000 || Guard(sql) != nil {
			return
		}
		compareWithScanner(t, sql)
	})
}

func compareWithScanner(t *testing.T, sql string) {
	t.Helper()
	want, err := pg.Scan(sql)
	if err != nil {
		l := lexer{text: sql} // it must end all the same
		for l.next().kind != tokEnd {
		}
		return
	}
	strs := make(map[int]int)
	l := lexer{text: sql}
	for tok := l.next(); tok.kind != tokEnd; tok = l.next() {
		if tok.kind == tokString {
			strs[tok.start] = tok.end
		}
		if tok.end <= tok.start {
			t.Fatalf("%q: a token of no length at %d", sql, tok.start)
		}
	}
	if l.ambiguous {
		return
	}
	for i, tok := range want.Tokens {
		switch tok.Token {
		case pg.Token_SCONST, pg.Token_BCONST, pg.Token_XCONST, pg.Token_USCONST:
			start := int(tok.Start)
			// N'' is two tokens to the scanner, and one here.
			if i > 0 && want.Tokens[i-1].Token == pg.Token_NCHAR && want.Tokens[i-1].End == tok.Start {
				start = int(want.Tokens[i-1].Start)
			}
			end, ok := strs[start]
			if !ok || strings.TrimRight(sql[start:end], " ") != strings.TrimRight(sql[start:max(start, int(tok.End))], " ") {
				t.Errorf("%q: the scanner has a string at %d to %d, the lexer to %d", sql, start, tok.End, end)
			}
			delete(strs, start)
		}
	}
	for start, end := range strs {
		t.Errorf("%q: the lexer has a string at %d to %d, the scanner none", sql, start, end)
	}
}

// TestGuardIsEnough parses what the guard lets pass only just: the parser must
// come back.
func TestGuardIsEnough(t *testing.T) {
	for name, c := range map[string]struct{ head, repeated, tail string }{
		"plus": {"select 1", "+1", ""}, "cast": {"select 1", "::int", ""}, "union": {"select 1", " union select 1", ""},
		"not": {"select ", "not ", "true"}, "minus": {"select ", "- ", "1"}, "array": {"select ", "array[", "1"},
		"case": {"select ", "case when true then 1 else ", "1"}, "join": {"select * from a", " join b using (x)", ""},
		"or": {"select a", " or (a", ""}, "in": {"select a", " in (a)", ""}, "paren": {"select ", "(", "1"},
		"subquery": {"", "(select ", "1"}, "with": {"", "with x as (", "select 1"}, "isnull": {"select a", " isnull", ""},
		"at": {"select a", " at time zone b", ""}, "collate": {"select a", ` collate "C"`, ""}, "dots": {"select a", ".b", ""},
		"subscript": {"select a", "[1]", ""}, "unions in parentheses": {"", "(select 1 union ", "select 1"},
		"values": {"values (1)", " union all values (1)", ""}, "exists": {"select ", "exists (select ", "1"},
		"function": {"select ", "f(", "1"}, "row": {"select ", "row(1, ", "1"}, "interval": {"select ", "interval ", "1"},
		"setof": {"create function f() returns ", "setof ", "int as ''"}, "between": {"select a", " between 1 and 2", ""},
		"is distinct": {"select a", " is distinct from a", ""}, "operator": {"select a", " operator(pg_catalog.+) a", ""},
		"join paren": {"select * from ", "(a cross join ", "b"}, "like": {"select a", " like a", ""},
		"default": {"create table a (b int ", "default 1 ", ")"}, "explain": {"", "explain ", "select 1"},
	} {
		text := func(n int) string {
			closing := strings.Count(c.repeated, "(") - strings.Count(c.repeated, ")")
			s := c.head + strings.Repeat(c.repeated, n) + c.tail + strings.Repeat(")", closing*n)
			s += strings.Repeat("]", (strings.Count(c.repeated, "[")-strings.Count(c.repeated, "]"))*n)
			return s + strings.Repeat(" end", strings.Count(c.repeated, "case")*n)
		}
		low, high := 1, 20000
		for low < high { // the most that passes
			mid := (low + high + 1) / 2
			if Guard(text(mid)) == nil {
				low = mid
			} else {
				high = mid - 1
			}
		}
		sql := text(low)
		tree, err := pg.Parse(sql)
		if err != nil {
			continue // refused, without a crash
		}
		for _, st := range Analyze(tree, sql, testSession(), nil) {
			if len(st.Accesses) == 0 {
				t.Errorf("%s: no access", name)
			}
		}
	}
}

func BenchmarkGuard(b *testing.B) {
	sql := strings.Repeat("select a.id, b.name from shop.orders a join shop.customers b on b.id = a.customer_id where a.total > 10 and b.name like 'x%';\n", 100)
	b.SetBytes(int64(len(sql)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Guard(sql); err != nil {
			b.Fatal(err)
		}
	}
}
