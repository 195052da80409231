package bypass

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A corpus is a folder of .sql files that people read and add to; nothing is taken
// out of it. A file begins with lines "-- key: value" that hold for all of its cases,
// then an empty line. A case begins with "-- case: NAME" and lines of its own; what
// follows is SQL. In it
//
//	-- then         ends a statement; the next one follows in the same session
//	-- pipeline     all statements from here on go in one batch, extended protocol
//	-- as WHO       the next statement is somebody else's, in a session of theirs
//	-- direct       the next statement is the server's own superuser's, round Weir
//	-- values: a|b  parameters of the next statement
//	-- rows: text   what the client sends when the next statement asks for rows
//
// Keys: class; who; want (refused, masked, either); ways; startup (a setting of the
// session); dull (why the server itself gives nothing away); compare (no: what comes back
// depends on the hidden value by design, or on chance; unless refused: the same when Weir
// refuses a statement of it); undo (what the superuser runs afterwards);
// takes (timing: how long it takes is looked at); open (what leaks, known and not closed
// yet: it is counted as a leak, and the case fails when it leaks no more); why (for people).
type sqlCase struct {
	file, name string
	keys       map[string]string
	steps      []step
}

type step struct {
	sql      string
	who      string // "": the case's
	pipeline bool
	direct   bool
	values   []string
	bound    bool // values are given, if only none
	rows     string
}

func (c *sqlCase) key(name, otherwise string) string {
	if v, ok := c.keys[name]; ok {
		return v
	}
	return otherwise
}

func (c *sqlCase) String() string { return strings.TrimSuffix(c.file, ".sql") + "/" + c.name }

// single reports a case of one statement in one session.
func (c *sqlCase) single() bool {
	return len(c.steps) == 1 && !c.steps[0].pipeline && c.steps[0].who == "" && !c.steps[0].direct
}

var knownKeys = []string{"class", "who", "want", "ways", "startup", "dull", "compare", "undo", "takes", "why", "except", "open"}

// loadCorpus reads all cases of a folder below corpus. It fails on anything that is
// not in the form above: a case that is not run must not look like one.
func loadCorpus(t testing.TB, folder string) []*sqlCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("corpus", folder, "*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus in %s: %v", folder, err)
	}
	var all []*sqlCase
	names := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseCorpus(filepath.Base(f), string(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			if names[c.String()] {
				t.Fatalf("%s is there twice", c)
			}
			names[c.String()] = true
		}
		all = append(all, cases...)
	}
	return all
}

func parseCorpus(file, text string) ([]*sqlCase, error) {
	defaults := map[string]string{}
	var all []*sqlCase
	var c *sqlCase
	head := true // between "-- case" and the first line of SQL
	for n, line := range strings.Split(text, "\n") {
		fail := func(what string) ([]*sqlCase, error) { return nil, fmt.Errorf("%s:%d: %s: %q", file, n+1, what, line) }
		comment, isComment := strings.CutPrefix(line, "-- ")
		key, value, hasValue := strings.Cut(comment, ": ")
		switch {
		case isComment && key == "case" && hasValue:
			if err := c.finish(); err != nil {
				return nil, err
			}
			c = &sqlCase{file: file, name: value, keys: map[string]string{}, steps: []step{{}}}
			for k, v := range defaults {
				c.keys[k] = v
			}
			all, head = append(all, c), true
		case isComment && hasValue && slices.Contains(knownKeys, key) && head:
			if c != nil {
				c.keys[key] = value
			} else {
				defaults[key] = value
			}
		case c == nil:
			if line != "" && !strings.HasPrefix(line, "--") {
				return fail("SQL before the first case")
			}
		case isComment && c.mark(comment):
			head = false
		case isComment && head:
			return fail("no such key")
		default:
			head = head && line == ""
			s := &c.steps[len(c.steps)-1]
			s.sql += line + "\n"
		}
	}
	if err := c.finish(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no case", file)
	}
	return all, nil
}

// mark takes a line that says something about the statements; false: it is SQL.
func (c *sqlCase) mark(line string) bool {
	s := &c.steps[len(c.steps)-1]
	key, value, _ := strings.Cut(line, " ")
	switch {
	case line == "then":
		c.steps = append(c.steps, step{pipeline: s.pipeline})
	case line == "pipeline":
		s.pipeline = true
	case line == "direct":
		s.direct = true
	case key == "as" && !strings.Contains(value, " "):
		s.who = value
	case key == "values:":
		s.values, s.bound = strings.Split(value, "|"), true
	case key == "rows:":
		s.rows = strings.ReplaceAll(strings.ReplaceAll(value, `\t`, "\t"), `\n`, "\n")
	default:
		return false
	}
	return true
}

func (c *sqlCase) finish() error {
	if c == nil {
		return nil
	}
	for i := range c.steps {
		c.steps[i].sql = strings.Trim(c.steps[i].sql, "\n")
		if c.steps[i].sql == "" {
			return fmt.Errorf("%s: statement %d is empty", c, i+1)
		}
	}
	for _, k := range []string{"class", "who"} {
		if c.keys[k] == "" {
			return fmt.Errorf("%s has no %s", c, k)
		}
	}
	return nil
}
