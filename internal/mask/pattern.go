package mask

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"unicode/utf8"
)

// MaxPattern bounds the text of a user's pattern, bytes: a policy is written by
// people.
const MaxPattern = 4 << 10

// pattern is a user's own detector. Its expression only runs on values that hold
// the text without which it cannot match.
type pattern struct {
	re       *regexp.Regexp
	literal  []byte // nil when no text is certain
	detector int
}

func compilePattern(expr string, detector int) (pattern, error) {
	if len(expr) > MaxPattern {
		return pattern{}, fmt.Errorf("the pattern has %d bytes, at most %d are allowed", len(expr), MaxPattern)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return pattern{}, err
	}
	if re.MatchString("") {
		return pattern{}, errors.New("the pattern matches the empty string and so would match everywhere; make it ask for at least one character")
	}
	p := pattern{re: re, detector: detector}
	if tree, err := syntax.Parse(expr, syntax.Perl); err == nil {
		p.literal = []byte(requiredLiteral(tree))
	}
	return p, nil
}

// requiredLiteral is the longest text that every match contains, "" when there is
// none to be sure of.
func requiredLiteral(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			// A value in another encoding, or an invalid one, has other bytes.
			if re.Flags&syntax.FoldCase != 0 || r >= utf8.RuneSelf {
				return ""
			}
		}
		return string(re.Rune)
	case syntax.OpCapture, syntax.OpPlus:
		return requiredLiteral(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min >= 1 {
			return requiredLiteral(re.Sub[0])
		}
	case syntax.OpConcat:
		best := ""
		for _, sub := range re.Sub {
			if s := requiredLiteral(sub); len(s) > len(best) {
				best = s
			}
		}
		return best
	}
	return ""
}

func (p *pattern) scan(v []byte, out []Span) []Span {
	if len(p.literal) > 0 && !bytes.Contains(v, p.literal) {
		return out
	}
	for _, m := range p.re.FindAllIndex(v, -1) {
		if m[1] > m[0] {
			out = append(out, Span{m[0], m[1], p.detector})
		}
	}
	return out
}
