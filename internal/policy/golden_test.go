package policy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/flow"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// analyse stands in for sqlmeta: statements are parted by ";", their accesses by
// ",", each is "verb resource"; a ! behind the verb stands for no WHERE.
func analyse(_, sql string) ([]Analysed, error) {
	var actions []Analysed
	for _, stmt := range strings.Split(sql, ";") {
		a := flow.Action{Text: strings.TrimSpace(stmt), Bytes: int64(len(stmt))}
		for _, text := range strings.Split(stmt, ",") {
			verb, resource, _ := strings.Cut(strings.TrimSpace(text), " ")
			bare := strings.TrimSuffix(verb, "!")
			a.Accesses = append(a.Accesses, flow.Access{Verb: flow.Verb(bare), Resource: resource, Unrestricted: bare != verb})
		}
		actions = append(actions, Analysed{Action: a})
	}
	return actions, nil
}

func compileDir(t testing.TB, dir string) *Set {
	t.Helper()
	path := filepath.Join(dir, "policy.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile([]File{{Name: "policy.yaml", Data: data}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each folder of testdata/golden holds a policy whose own tests are the cases,
// and what `policy explain` says about each.
func TestGolden(t *testing.T) {
	dirs, _ := filepath.Glob("testdata/golden/*")
	if len(dirs) < 5 {
		t.Fatal("the golden folders are missing")
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			s := compileDir(t, dir)
			for _, r := range RunTests(s, analyse, nil, noon) {
				if !r.OK {
					t.Errorf("line %d: %s: got %s by %q, want %s by %q (%s)", r.Line, r.Case, r.Got, r.Rule, r.Expect, r.WantRule, r.Reason)
				}
			}
			for i, test := range s.Tests() {
				golden(t, filepath.Join(dir, fmt.Sprintf("case-%02d.txt", i+1)), explainTest(t, s, &test))
			}
			var warnings strings.Builder
			for _, w := range s.Warnings() {
				fmt.Fprintln(&warnings, w)
			}
			golden(t, filepath.Join(dir, "warnings.txt"), warnings.String())
		})
	}
}

func explainTest(t *testing.T, s *Set, test *Test) string {
	t.Helper()
	in := Input{Principal: test.Principal, Argv0: test.Argv0, Now: test.Now,
		Flow: &flow.Flow{Backend: test.Backend, Database: test.Database, Process: test.Process}}
	if in.Now.IsZero() {
		in.Now = noon
	}
	list, err := s.ExplainText(in, test.SQL, test.Action, analyse)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", test)
	for i := range list {
		if err := list[i].WriteText(&b, false); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// The example compiles without a warning, and its cases that are no SQL hold;
// cmd/weir runs all of them.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("../../deploy/policy.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile([]File{{Name: "policy.example.yaml", Data: data}}, Options{Protocols: map[string]flow.Protocol{"orders": flow.Postgres}})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range s.Warnings() {
		t.Error(w)
	}
	ran := 0
	for i, r := range RunTests(s, analyse, map[string]flow.Protocol{"orders": flow.Postgres}, noon) {
		if s.Tests()[i].Action != nil {
			ran++
			if !r.OK {
				t.Errorf("line %d: %s: %s (%s)", r.Line, r.Case, r.Got, r.Reason)
			}
		}
	}
	if ran < 3 {
		t.Error("too few cases")
	}
}
