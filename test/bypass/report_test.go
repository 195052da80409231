package bypass

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

var update = flag.Bool("update", false, "write REPORT.md")

const reportFile = "REPORT.md"

// count is what a run of a corpus came to, by class.
type count struct {
	cases, runs, refused, answered, leaks, passed int
}

// tally is what all runs of this test binary came to.
type tally struct {
	mu    sync.Mutex
	by    map[string]map[string]count // corpus -> class
	lines map[string][]string         // section -> what else is said in it
}

var results = &tally{by: map[string]map[string]count{}, lines: map[string][]string{}}

func (r *tally) add(corpus, class string, n count) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by[corpus] == nil {
		r.by[corpus] = map[string]count{}
	}
	c := r.by[corpus][class]
	c.cases += n.cases
	c.runs += n.runs
	c.refused += n.refused
	c.answered += n.answered
	c.leaks += n.leaks
	c.passed += n.passed
	r.by[corpus][class] = c
}

// say adds a line to a section of the report. Without times and chance: the report is
// compared.
func (r *tally) say(section, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines[section] = append(r.lines[section], line)
}

// text is the report: what there is of it is sorted.
func (r *tally) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	b.WriteString("# Attacks and harmless statements\n\nWritten by `make bypass-report`; the test fails when it differs from what the corpora do.\n")
	sections := sorted(r.by)
	for s := range r.lines {
		if !slices.Contains(sections, s) {
			sections = append(sections, s)
		}
	}
	slices.Sort(sections)
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n", s)
		if by := r.by[s]; by != nil {
			var sum count
			b.WriteString("\n| class | cases | runs | refused | answered | leaks |\n|---|---:|---:|---:|---:|---:|\n")
			row := func(name string, c count) {
				fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", name, c.cases, c.runs, c.refused, c.answered, c.leaks)
			}
			for _, class := range sorted(by) {
				c := by[class]
				row(class, c)
				sum = count{sum.cases + c.cases, sum.runs + c.runs, sum.refused + c.refused, sum.answered + c.answered, sum.leaks + c.leaks, 0}
			}
			row("all", sum)
		}
		slices.Sort(r.lines[s])
		for _, line := range r.lines[s] {
			b.WriteString("\n" + line + "\n")
		}
	}
	return b.String()
}

// report writes the report, or says that it differs; only after a run of everything.
func (r *tally) report() error {
	for _, f := range []string{"test.run", "test.skip"} {
		if v := flag.Lookup(f); v != nil && v.Value.String() != "" {
			return nil
		}
	}
	text := r.text()
	if *update {
		return os.WriteFile(reportFile, []byte(text), 0o644)
	}
	have, err := os.ReadFile(reportFile)
	if err != nil {
		return err
	}
	if string(have) != text {
		return fmt.Errorf("%s is not what this run came to; make bypass-report writes it:\n%s", reportFile, text)
	}
	return nil
}
