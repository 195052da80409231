package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// Analysed is one statement as an Analyser found it.
type Analysed struct {
	flow.Action
	// Masked says what masks do to the statement; nil where nobody can say.
	Masked func(masks []*Mask) (Masked, error)
}

// Analyser turns SQL into statements. What it cannot read is an action {unknown}
// with a Problem; an error means that there is no answer, and a test fails with it.
type Analyser func(backend, sql string) ([]Analysed, error)

// Masked is what masks do to one statement, as far as its text shows.
type Masked struct {
	// Columns of the result, in order.
	Columns []MaskedColumn `json:"columns,omitempty"`
	// Tests are where values of columns decide what happens.
	Tests []TestedColumn `json:"tests,omitempty"`
	// Spends is what the tests take out of budgets.
	Spends []Spending `json:"spends,omitempty"`
	// Refused says why masks refuse the statement, whatever its rules say; "" when
	// they do not. RefusedBy is the mask.
	Refused   string `json:"refused,omitempty"`
	RefusedBy string `json:"refused_by,omitempty"`
	// Notes are what could not be told, and why.
	Notes []string `json:"notes,omitempty"`
}

// MaskedColumn is one column of a result.
type MaskedColumn struct {
	Position int    `json:"position"`         // from 1; 0 stands for all, where the text does not show which there are
	Name     string `json:"name,omitempty"`   // "" when the text does not show it
	Carries  string `json:"carries"`          // its lineage, in words
	Mask     string `json:"mask,omitempty"`   // name of the mask that decided; "" for none
	Method   string `json:"method,omitempty"` // how it is masked; "" when it is not
	Source   string `json:"source,omitempty"` // lineage | unresolved | unknown
}

// SourceUnknown is of a column of which nobody can say whether it is masked: the
// text shows a whole row, and what is in it is not known.
const SourceUnknown = "unknown"

// TestedColumn is one place where values of a column decide what happens.
type TestedColumn struct {
	Column string `json:"column"`
	Kind   string `json:"kind"`   // equal | compare | free
	Values int    `json:"values"` // that it is held against
	Where  string `json:"where"`
}

// Spending is what a statement takes out of the budget of a mask.
type Spending struct {
	Policy string `json:"policy"`
	Mask   string `json:"mask"`
	Column string `json:"column"`
	Tests  int    `json:"tests"`
	Limit  int    `json:"limit"`
	Per    string `json:"per"`
}

// Spend notes what the tests take out of budgets. A statement that takes more than
// there is in a full one never passes.
func (m *Masked) Spend(spends []flow.Spend) {
	for _, s := range spends {
		m.Spends = append(m.Spends, Spending{s.Policy, s.Mask, s.Column, s.Tests, s.Limit, DurationText(s.Per)})
		if m.Refused == "" && s.Tests > s.Limit {
			m.RefusedBy = s.Mask
			m.Refused = fmt.Sprintf("mask %q lets you test %s %d times in %s, and this takes %d", s.Mask, s.Column, s.Limit, DurationText(s.Per), s.Tests)
		}
	}
}

// methodWords say what a method makes of a value.
var methodWords = map[string]string{
	MaskRedact: "redacted", MaskLast4: "shown but for all digits before the last four", MaskNull: "shown as NULL",
	MaskHash: "shown as a keyed hash", MaskToken: "shown as a token", MaskEmail: "shown with the local part of its address hidden",
}

// kindWords say how much a test can tell.
var kindWords = map[string]string{
	"equal": "is compared for equality", "compare": "is compared, put in order or in groups",
	"free": "is held against other data, or decides how many rows there are",
}

// write puts it into words; said is why the statement is decided as it is.
func (m *Masked) write(b *strings.Builder, said string) {
	if len(m.Columns) > 0 && m.Refused == "" {
		b.WriteString("\nthe result:\n")
		for i := range m.Columns {
			b.WriteString("  " + m.Columns[i].String() + "\n")
		}
	}
	if len(m.Tests) > 0 {
		b.WriteString("\ncolumns that decide what happens:\n")
	}
	for _, t := range m.Tests {
		fmt.Fprintf(b, "  %s %s (%s)", t.Column, cmp.Or(kindWords[t.Kind], "is tested"), t.Where)
		if t.Values > 1 {
			fmt.Fprintf(b, ", %d values", t.Values)
		}
		b.WriteByte('\n')
	}
	for _, s := range m.Spends {
		fmt.Fprintf(b, "  takes %d of the %d tests of %s that mask %q gives each person in %s\n", s.Tests, s.Limit, s.Column, s.Mask, s.Per)
	}
	if m.Refused != "" && m.Refused != said {
		fmt.Fprintf(b, "\nrefused by masks: %s\n", m.Refused)
	}
	for _, n := range m.Notes {
		fmt.Fprintf(b, "\nnote: %s\n", n)
	}
}

// String is the column in words.
func (c *MaskedColumn) String() string {
	what := "all columns"
	if c.Position > 0 {
		what = "column " + strconv.Itoa(c.Position)
	}
	if c.Name != "" {
		what += " " + strconv.Quote(c.Name)
	}
	what += ": " + c.Carries + " -> "
	if c.Source == SourceUnknown {
		return what + "whatever masks make of the columns of the row, which are not known"
	}
	if c.Method == "" {
		return what + "as it is"
	}
	what += cmp.Or(methodWords[c.Method], c.Method)
	if c.Mask != "" {
		what += " by mask " + strconv.Quote(c.Mask)
	}
	if c.Source == "unresolved" {
		what += ", since it may carry what a mask hides"
	}
	return what
}

// DurationText is a length of time as the policy writes it: 24h, not 24h0m0s.
func DurationText(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// maskNone is what a test says of a column that no mask changes.
const maskNone = "none"

// wantMasks checks what a test says about masks against what they do.
func (t *Test) wantMasks(list []Analysed, masks []*Mask) error {
	if len(t.Masks) == 0 && t.Refused == "" {
		return nil
	}
	if len(list) != 1 {
		return errors.New("masks: and refused: are about one statement, and this is several")
	}
	if list[0].Masked == nil {
		return errors.New("what masks do cannot be told here")
	}
	m, err := list[0].Masked(masks)
	if err != nil {
		return err
	}
	if t.Refused != "" && !strings.Contains(m.Refused, t.Refused) {
		return fmt.Errorf("masks do not refuse it with %q but with %q", t.Refused, m.Refused)
	}
	for _, key := range slices.Sorted(maps.Keys(t.Masks)) {
		c, err := m.column(key)
		if err != nil {
			return err
		}
		if got, want := cmp.Or(c.Method, maskNone), t.Masks[key]; got != want || c.Source == SourceUnknown {
			return fmt.Errorf("%s; the test wants %s", c, want)
		}
	}
	return nil
}

// column finds a column by its position or, if it is no number, its name.
func (m *Masked) column(key string) (*MaskedColumn, error) {
	position, err := strconv.Atoi(key)
	var found *MaskedColumn
	for i := range m.Columns {
		c := &m.Columns[i]
		if err == nil && c.Position == position || err != nil && c.Name == key {
			if found != nil {
				return nil, fmt.Errorf("the result has several columns %q; name them by position, from 1", key)
			}
			found = c
		}
	}
	if found == nil {
		note := ""
		if len(m.Notes) > 0 {
			note = " (" + m.Notes[0] + ")"
		}
		return nil, fmt.Errorf("the text shows no column %q of the result%s", key, note)
	}
	return found, nil
}
