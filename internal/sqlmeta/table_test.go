package sqlmeta

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pg "github.com/pganalyze/pg_query_go/v6"
)

var update = flag.Bool("update", false, "write what the statements do now into testdata/accesses.txt; read the difference")

// parse is for trusted text: it runs the C parser in the test itself.
func parse(sql string) (*pg.ParseResult, error) {
	if err := Guard(sql); err != nil {
		return nil, err
	}
	return pg.Parse(sql)
}

func mustAnalyze(sql string, c testContext) []*Statement {
	tree, err := parse(sql)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", sql, err))
	}
	return Analyze(tree, sql, c.session, c.catalog)
}

// minimumCases: the table only grows.
const minimumCases = 499

// TestAccesses holds testdata/accesses.txt against what is found now.
func TestAccesses(t *testing.T) {
	want, err := os.ReadFile("testdata/accesses.txt")
	if err != nil {
		t.Fatal(err)
	}
	full := testCatalog()
	context := newContext(full, "")
	var got bytes.Buffer
	cases := 0
	lines := bufio.NewScanner(bytes.NewReader(want))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "  "):
			continue
		case strings.HasPrefix(line, "@ "):
			context = newContext(full, line[2:])
		}
		fmt.Fprintln(&got, line)
		if sql, ok := strings.CutPrefix(line, "> "); ok {
			cases++
			writeAccesses(t, &got, sql, context)
		}
	}
	if *update {
		if err := os.WriteFile("testdata/accesses.txt", got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); d != "" {
		t.Errorf("-testdata/accesses.txt +now:\n%s", d)
	}
	if cases < minimumCases {
		t.Errorf("%d cases, were %d", cases, minimumCases)
	}
}

func writeAccesses(t *testing.T, out *bytes.Buffer, sql string, c testContext) {
	tree, err := parse(sql)
	if err != nil {
		t.Errorf("%s: %v", sql, err)
		return
	}
	for i, st := range Analyze(tree, sql, c.session, c.catalog) {
		if i > 0 {
			fmt.Fprintln(out, "  ;")
		}
		for _, a := range st.Accesses {
			mark := ""
			if a.Unrestricted {
				mark = " !"
			}
			fmt.Fprintf(out, "  %s\n", strings.TrimSpace(string(a.Verb)+" "+a.Resource+mark))
		}
	}
}
