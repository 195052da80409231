package sqlmeta

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitDump(t *testing.T) {
	tests := []struct{ text, want string }{
		{"select 1;", "select 1;"},
		{"", ""},
		{"\\restrict x'y\nselect 1;\n\\unrestrict", "\nselect 1;\n"},
		{"select '\n\\x\n';\n\\y\n", "select '\n\\x\n';\n\n"},
		{"select $$\n\\x\n$$;\n\\y", "select $$\n\\x\n$$;\n"},
		{"/*\n\\x\n*/\n\\y", "/*\n\\x\n*/\n"},
		{"select 1 \\x\n", "select 1 \\x\n"},
		{"COPY t (a) FROM stdin;\n1;'\n\\\\.\n\\.\nselect 1", "COPY t (a) FROM stdin;\n\n\n\nselect 1"},
		{"copy t FROM STDIN with (format csv);\r\n'\r\n\\.\r\nselect 1", "copy t FROM STDIN with (format csv);\r\n\n\nselect 1"},
		{"copy t from stdin; -- x'\n'\n\\.\nselect 1", "copy t from stdin; -- x'\n\n\nselect 1"},
		{"copy t from stdin;\n1\n2", "copy t from stdin;\n\n"},
		{"copy t from stdin;", "copy t from stdin;"},
		{"copy (select 1 from stdin) to stdout;\nselect 2", "copy (select 1 from stdin) to stdout;\nselect 2"},
		{"copy t to stdout;\n\\.\nselect 2", "copy t to stdout;\n\nselect 2"},
		{"select a from stdin;\nselect 2", "select a from stdin;\nselect 2"},
	}
	for _, test := range tests {
		got, warnings := SplitDump(test.text)
		if got != test.want || len(warnings) > 0 {
			t.Errorf("%q:\n got %q %q\nwant %q", test.text, got, warnings, test.want)
		}
	}
}

func TestSplitDumpWarns(t *testing.T) {
	_, got := SplitDump("select 1;\n\\i other.sql\n\\connect shop\n\\echo x\n\\if :x\n")
	want := []string{`line 2: psql's \i includes`, `line 3: psql's \connect goes`, `line 5: psql's \if makes`}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}

func TestPieces(t *testing.T) {
	const atomic = "create or replace function f() begin atomic select case when a then 1 end; select 2; end;"
	tests := []struct {
		text string
		size int
		want []string
	}{
		{"", 10, nil},
		{"a;b;c", 1, []string{"a;", "b;", "c"}},
		{"a;b;c", 4, []string{"a;b;", "c"}},
		{"a;b;c", 5, []string{"a;b;c"}},
		{"a';';b", 1, []string{"a';';", "b"}},
		{"create rule r as on insert to t do (select 1; select 2); x", 1, []string{"create rule r as on insert to t do (select 1; select 2);", " x"}},
		{"begin; select 1; end; a", 1, []string{"begin;", " select 1;", " end;", " a"}},
		{atomic + " a;", 1, []string{atomic, " a;"}},
		{strings.ToUpper(atomic) + "b", 1, []string{strings.ToUpper(atomic), "b"}},
	}
	for _, test := range tests {
		if got := Pieces(test.text, test.size); !slices.Equal(got, test.want) {
			t.Errorf("%q by %d:\n got %q\nwant %q", test.text, test.size, got, test.want)
		}
	}
}

func FuzzSplitDump(f *testing.F) {
	for _, seed := range []string{
		"\\restrict x\nselect 1;\n", "copy t from stdin;\n1\n\\.\nselect 1;", "select '\n\\x\n'; \\\n\\y", "$a$\n\\\n$a$\n\\", "/*\n\\ */\n\\",
		"create function f() begin atomic select 1; end; copy a from stdin", "E'\\", "\"\n\\", "U&'\n\\\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sql, _ := SplitDump(text)
		if strings.Count(sql, "\n") != strings.Count(text, "\n") {
			t.Errorf("%q has other lines than %q", sql, text)
		}
		if len(sql) > len(text) {
			t.Errorf("%q is longer than %q", sql, text)
		}
		again, _ := SplitDump(sql)
		if strings.Count(again, "\n") != strings.Count(sql, "\n") {
			t.Errorf("%q has other lines than %q", again, sql)
		}
		pieces := Pieces(sql, 16)
		if strings.Join(pieces, "") != sql {
			t.Errorf("the pieces of %q are %q", sql, pieces)
		}
	})
}
