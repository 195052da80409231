package mask

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the table of docs/DETECTORS.md")

// floors are the least precision and recall, per cent, that a detector may have on
// its labelled set. The sets hold what the detectors are known to miss, too: a
// floor of 100 would say that a set is too easy.
var floors = map[string][2]int{
	PaymentCard: {92, 91}, IBAN: {100, 96}, EmailAddr: {95, 92}, Phone: {90, 91}, SSN: {90, 94}, IP: {88, 93}, Secret: {100, 92},
}

// measured is what a detector did on its labelled set.
type measured struct {
	texts, near            int      // lines with and without something to find
	right, wrong, missed   int      // findings that are labelled, that are not, and labels that were not found
	wrongLines, missedOnes []string // for the log
}

func (m *measured) precision() float64 { return 100 * float64(m.right) / float64(m.right+m.wrong) }
func (m *measured) recall() float64    { return 100 * float64(m.right) / float64(m.right+m.missed) }

// labelled takes the marks out of a line and gives the spans that they were around.
func labelled(t *testing.T, line string) (text string, spans []Span) {
	var b strings.Builder
	for rest := line; ; {
		before, after, ok := strings.Cut(rest, "«")
		b.WriteString(before)
		if !ok {
			return b.String(), spans
		}
		value, after, ok := strings.Cut(after, "»")
		if !ok {
			t.Fatalf("a mark is not closed: %s", line)
		}
		spans = append(spans, Span{Start: b.Len(), End: b.Len() + len(value)})
		b.WriteString(value)
		rest = after
	}
}

// measure runs a detector over its labelled set. A finding is right when it hides
// all of a label and reaches at most one character beyond it on either side.
func measure(t *testing.T, detector string) *measured {
	content, err := os.ReadFile(filepath.Join("testdata", "labelled", detector+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	s, m := compile(t, Rule{detector, Redact}), new(measured)
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# ") {
			continue
		}
		text, want := labelled(t, line)
		if len(want) > 0 {
			m.texts++
		} else {
			m.near++
		}
		for _, f := range s.Scan(nil, []byte(text)) {
			hides := func(w Span) bool {
				return f.Start <= w.Start && f.End >= w.End &&
					utf8.RuneCountInString(text[f.Start:w.Start]) <= 1 && utf8.RuneCountInString(text[w.End:f.End]) <= 1
			}
			if i := slices.IndexFunc(want, hides); i >= 0 {
				m.right++
				want = slices.Delete(want, i, i+1)
			} else {
				m.wrong++
				m.wrongLines = append(m.wrongLines, line)
			}
		}
		m.missed += len(want)
		if len(want) > 0 {
			m.missedOnes = append(m.missedOnes, line)
		}
	}
	return m
}

// TestLabelled holds precision and recall on the labelled sets, and the table of
// them in the documentation.
func TestLabelled(t *testing.T) {
	var table strings.Builder
	table.WriteString("| detector | texts with it | near misses | precision | recall |\n|---|---:|---:|---:|---:|\n")
	for _, d := range BuiltIns {
		m := measure(t, d)
		fmt.Fprintf(&table, "| `%s` | %d | %d | %.1f %% | %.1f %% |\n", d, m.texts, m.near, m.precision(), m.recall())
		if m.precision() < float64(floors[d][0]) || m.recall() < float64(floors[d][1]) {
			t.Errorf("%s: precision %.1f %%, recall %.1f %%; at least %d and %d are wanted", d, m.precision(), m.recall(), floors[d][0], floors[d][1])
		}
		t.Logf("%s found without reason:\n\t%s\nmissed:\n\t%s", d, strings.Join(m.wrongLines, "\n\t"), strings.Join(m.missedOnes, "\n\t"))
	}
	const begin, end = "<!-- labelled: written by go test ./internal/mask -run TestLabelled -update -->\n", "<!-- end -->"
	doc := filepath.Join("..", "..", "docs", "DETECTORS.md")
	content, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := bytes.Cut(content, []byte(begin))
	old, tail, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		t.Fatalf("%s has lost the marks around its table", doc)
	}
	if string(old) == table.String() {
		return
	}
	if !*update {
		t.Fatalf("the table in %s is not what the detectors do: run with -update and read the difference", doc)
	}
	if err := os.WriteFile(doc, slices.Concat(head, []byte(begin+table.String()+end), tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
