// Command testsum reads `go test -json` on standard input, prints what failed
// with its output, every skip with its reason, one line a package, and a closing
// count. Its exit status is 1 when anything failed or nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// event is one line of `go test -json`, see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// key names a test; Test is "" for what its package printed outside of tests.
type key struct{ pkg, test string }

type summary struct {
	out    io.Writer
	output map[key][]string // of tests without a result
	skips  []string

	passed, failed int // tests
	packages       int // that failed
}

func main() {
	ok, err := summarize(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum: cannot read the results:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func summarize(in io.Reader, out io.Writer) (ok bool, err error) {
	s := &summary{out: out, output: map[key][]string{}}
	r := bufio.NewReader(in)
	for err == nil {
		var line []byte
		if line, err = r.ReadBytes('\n'); len(line) > 0 {
			s.line(line)
		}
	}
	if err != io.EOF {
		return false, err
	}
	sort.Strings(s.skips)
	for _, skip := range s.skips {
		fmt.Fprintln(out, skip)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skips))
	return s.failed == 0 && s.packages == 0 && s.passed > 0, nil
}

func (s *summary) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(s.out, "%s\n", strings.TrimSuffix(string(line), "\n"))
		return
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.output[k] = append(s.output[k], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "pass":
		delete(s.output, k)
		if e.Test == "" {
			fmt.Fprintf(s.out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
		} else {
			s.passed++
		}
	case "fail":
		if e.Test == "" {
			s.packages++
			s.unfinished(e.Package)
		} else {
			s.failed++
		}
		s.print("FAIL", k)
	case "skip":
		if e.Test != "" {
			s.skips = append(s.skips, fmt.Sprintf("SKIP %s %s: %s", e.Package, e.Test, reason(s.output[k])))
		}
		delete(s.output, k)
	}
}

// unfinished prints the tests that had no result when their package failed: the
// output of a crash, or of a time-out, is what one of them printed last.
func (s *summary) unfinished(pkg string) {
	var tests []string
	for k := range s.output {
		if k.pkg == pkg && k.test != "" {
			tests = append(tests, k.test)
		}
	}
	sort.Strings(tests)
	for _, test := range tests {
		s.failed++
		s.print("FAIL (no result)", key{pkg, test})
	}
}

func (s *summary) print(what string, k key) {
	fmt.Fprintf(s.out, "%s %s %s\n%s", what, k.pkg, k.test, strings.Join(s.output[k], ""))
	delete(s.output, k)
}

// reason is the line that the test gave to Skip.
func reason(lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l
		}
	}
	return "no reason given"
}
