package policy

import (
	"fmt"
	"time"

	"github.com/weirproxy/weir/internal/strictyaml"
)

// What testing a masked column (WHERE, ORDER BY, ...) is answered with; the package
// comment says what each means.
const (
	PredicatesDeny   = "deny"
	PredicatesAllow  = "allow"
	PredicatesBudget = "budget"
)

const (
	// DefaultEquality is how many values a principal may compare masked columns with
	// in DefaultPer under `predicates: deny`. Equality has to pass: looking a customer
	// up by e-mail is what applications do all day. But it lets one guess, and where
	// few values are possible guessing finds them all, so every value is counted: with
	// 1,000 a day a card number is out of reach and the 10,000 four-digit PINs take ten
	// days, in the record all of them. People do not make as many look-ups by hand; a
	// service that makes more gets a number of its own.
	DefaultEquality = 1000
	// DefaultPer is the time in which a budget may be spent: people ask by the day.
	DefaultPer = 24 * time.Hour

	// maxBudget bounds a budget: whoever may test a million values in a go may as well
	// be shown them (predicates: allow).
	maxBudget = 1_000_000
	// A window shorter than a second or longer than a year is likely a slip.
	minPer = time.Second
	maxPer = 366 * 24 * time.Hour
)

// predicatesYAML is deny, allow, {budget: N, per: D}, or {equality: N, per: D}: deny
// with a budget of its own for equality.
type predicatesYAML struct {
	mode     string
	Budget   *int                `yaml:"budget"`
	Equality *int                `yaml:"equality"`
	Per      strictyaml.Duration `yaml:"per"`
}

const predicatesFix = "write deny, allow, {budget: N, per: 24h} or {equality: N, per: 24h}"

// ParseScalar reads the short form.
func (p *predicatesYAML) ParseScalar(text string) error {
	p.mode = PredicatesDeny
	if text != PredicatesDeny && text != PredicatesAllow {
		return &strictyaml.FixError{What: "this says nothing about predicates", Fix: predicatesFix}
	}
	p.mode = text
	return nil
}

func (c *compiler) predicates(f *fileSource, path string, y *maskYAML, m *Mask) {
	path = at(path, "predicates")
	p := &y.Predicates
	m.Predicates, m.Budget, m.Per = PredicatesDeny, DefaultEquality, DefaultPer
	switch {
	case p.mode == PredicatesAllow:
		m.Predicates, m.Budget, m.Per = PredicatesAllow, 0, 0
	case p.mode != "":
	case p.Budget != nil && p.Equality != nil:
		f.doc.Add(path, "predicates has a budget and an equality", "keep budget for tests of every kind, or equality for equality only")
	case p.Budget != nil:
		m.Predicates, m.Budget = PredicatesBudget, *p.Budget
		c.budget(f, at(path, "budget"), "budget", m.Budget)
	case p.Equality != nil:
		m.Budget = *p.Equality
		c.budget(f, at(path, "equality"), "equality", m.Budget)
	case f.doc.Has(at(path, "per")):
		f.doc.Add(path, "predicates says how long and not how many", predicatesFix)
	case f.doc.Has(path):
		f.doc.Add(path, "predicates is empty", predicatesFix)
	}
	if perPath := at(path, "per"); f.doc.Has(perPath) {
		m.Per = time.Duration(p.Per)
		if m.Per < minPer || m.Per > maxPer {
			f.doc.Add(perPath, "per is shorter than a second or longer than a year", "write a time like 1h, 24h or 7d")
		}
	}
}

func (c *compiler) budget(f *fileSource, path, what string, n int) {
	switch {
	case n < 1:
		f.doc.Add(path, fmt.Sprintf("the %s is less than 1", what),
			"write a number of tests from 1")
	case n > maxBudget:
		f.doc.Add(path, fmt.Sprintf("the %s is more than %d", what, maxBudget), "so many tests are as good as seeing the values: write predicates: allow")
	}
}
