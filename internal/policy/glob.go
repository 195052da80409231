package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Glob is a compiled pattern for dotted SQL names. `*` matches any run of
// characters within one part, `**` any run over parts, everything else itself;
// a part or a piece of one in double quotes is literal, as in SQL (`"a.b".c`
// has two parts), and `\*` is a star. The zero value matches the empty name only.
type Glob struct {
	text string
	ops  []op
}

// NewGlob compiles a pattern for dotted SQL names.
func NewGlob(text string) (Glob, error) {
	ops, err := compileGlob(text, dotEnds, true)
	return Glob{text: text, ops: ops}, err
}

// String is the pattern as it was written.
func (g Glob) String() string { return g.text }

// Match reports whether the pattern matches a name written as the policy writes
// resources: parts joined by dots, a part with a dot in double quotes.
func (g Glob) Match(name string) bool { return matchDotted(g.ops, name) }

// MatchParts reports whether the pattern matches the name with these parts, which
// are plain: not quoted.
func (g Glob) MatchParts(parts ...string) bool {
	var buf [128]byte
	name := buf[:0]
	for i, p := range parts {
		if i > 0 {
			name = append(name, partSep)
		}
		name = append(name, p...)
	}
	return matchOps(g.ops, name, plainEnds)
}

// partSep joins parts that are no longer quoted. No identifier of PostgreSQL or
// MySQL can hold it.
const partSep = 0

type opKind uint8

const (
	opByte  opKind = iota
	opSep          // a byte that ends a part, or partSep in its place
	opStar         // any run within a part
	opStars        // any run
)

type op struct {
	kind opKind
	b    byte
}

var (
	errOpenQuote  = errors.New("a double quote is not closed")
	errBackslash  = errors.New(`a backslash stands only before * and \`)
	errManyStars  = errors.New("more than two * in a row")
	errNUL        = errors.New("it holds a NUL byte")
	errEmptyGlob  = errors.New("the pattern is empty")
	errLongGlob   = fmt.Errorf("the pattern is longer than %d bytes", maxGlobBytes)
	errStarsBound = fmt.Errorf("the pattern has more than %d wildcards", maxGlobStars)
)

const (
	// maxGlobBytes and maxGlobStars bound what one match may cost: matching is
	// at worst proportional to name length times pattern length.
	maxGlobBytes = 1024
	maxGlobStars = 64
)

// compileGlob reads a pattern for names whose parts end at the bytes of ends.
func compileGlob(text string, ends *[256]bool, quotes bool) ([]op, error) {
	switch {
	case text == "":
		return nil, errEmptyGlob
	case len(text) > maxGlobBytes:
		return nil, errLongGlob
	}
	ops := make([]op, 0, len(text))
	stars := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == 0:
			return nil, errNUL
		case c == '\\':
			if i+1 == len(text) || (text[i+1] != '*' && text[i+1] != '\\') {
				return nil, errBackslash
			}
			i++
			ops = append(ops, op{opByte, text[i]})
		case c == '"' && quotes:
			n, quoted, ok := unquote(text[i:])
			if !ok {
				return nil, errOpenQuote
			}
			for j := range len(quoted) {
				ops = append(ops, op{opByte, quoted[j]})
			}
			i += n - 1
		case c == '*':
			kind := opStar
			if i+1 < len(text) && text[i+1] == '*' {
				kind = opStars
				i++
			}
			if i+1 < len(text) && text[i+1] == '*' {
				return nil, errManyStars
			}
			if stars++; stars > maxGlobStars {
				return nil, errStarsBound
			}
			ops = append(ops, op{kind, 0})
		case ends[c]:
			ops = append(ops, op{opSep, c})
		default:
			ops = append(ops, op{opByte, c})
		}
	}
	return ops, nil
}

// unquote reads the double-quoted text at the start of s (a quote within is
// written twice) and returns how many bytes of s it took.
func unquote(s string) (n int, text string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return i + 1, b.String(), true
	}
	return 0, "", false
}

// matchDotted matches a dotted name that may hold quoted parts.
func matchDotted(ops []op, name string) bool {
	if strings.IndexByte(name, '"') < 0 {
		return matchOps(ops, name, dotEnds)
	}
	plain := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '.':
			plain = append(plain, partSep)
		case '"':
			n, quoted, ok := unquote(name[i:])
			if !ok { // no name of ours: take the quote as it stands
				plain = append(plain, '"')
				continue
			}
			plain = append(plain, quoted...)
			i += n - 1
		default:
			plain = append(plain, name[i])
		}
	}
	return matchOps(ops, plain, plainEnds)
}

// The bytes at which a part ends, by kind of name.
var (
	dotEnds     = endTable(".")
	plainEnds   = endTable("\x00")
	pathEnds    = endTable("/")
	commandEnds = endTable(";&|<>()`$\n") // the shell's operators
)

func endTable(chars string) *[256]bool {
	t := new([256]bool)
	for i := range len(chars) {
		t[chars[i]] = true
	}
	return t
}

// matchOps matches in time proportional to len(name) * len(ops) at worst.
func matchOps[T string | []byte](ops []op, name T, ends *[256]bool) bool {
	if mixesStars(ops) {
		return matchStates(ops, name, ends)
	}
	return matchGreedy(ops, name, ends)
}

// mixesStars reports whether a `*` follows a `**`: there going back to the last
// wildcard alone can cost the square of the name's length.
func mixesStars(ops []op) bool {
	crossing := false
	for _, o := range ops {
		if o.kind == opStar && crossing {
			return true
		}
		crossing = crossing || o.kind == opStars
	}
	return false
}

// matchGreedy goes back to the last wildcard only. That is enough: what an
// earlier `*` could still take, the later one takes as well, and a `*` of an
// earlier part ends at its separator in one way only.
func matchGreedy[T string | []byte](ops []op, name T, ends *[256]bool) bool {
	const none = -1
	i, j := 0, 0
	starJ, starI := none, 0   // op after the last `*`, name position to try next
	starsJ, starsI := none, 0 // the same for the last `**`
	for {
		switch {
		case j == len(ops) && i == len(name):
			return true
		case j < len(ops) && ops[j].kind == opStars:
			j++
			starsJ, starsI, starJ = j, i, none
			continue
		case j < len(ops) && ops[j].kind == opStar:
			j++
			starJ, starI = j, i
			continue
		case j < len(ops) && i < len(name) && ops[j].takes(name[i], ends):
			i, j = i+1, j+1
			continue
		}
		switch {
		case starJ != none && starI < len(name) && !ends[name[starI]]:
			starI++
			i, j = starI, starJ
		case starsJ != none && starsI < len(name):
			starsI++
			i, j = starsI, starsJ
		default:
			return false
		}
	}
}

// takes reports whether a plain op takes the byte c.
func (o op) takes(c byte, ends *[256]bool) bool {
	if o.kind == opSep {
		return ends[c] && (c == o.b || c == partSep)
	}
	return c == o.b && !ends[c]
}

// matchStates follows all possibilities at once: at[j] says that the ops before
// j can match what has been read.
func matchStates[T string | []byte](ops []op, name T, ends *[256]bool) bool {
	var at [maxGlobBytes + 1]bool
	at[0] = true
	skipStars(ops, &at)
	for i := range len(name) {
		c, alive := name[i], false
		for j := len(ops); j >= 0; j-- {
			stay := at[j] && j < len(ops) && (ops[j].kind == opStars || ops[j].kind == opStar && !ends[c])
			step := j > 0 && at[j-1] && ops[j-1].kind <= opSep && ops[j-1].takes(c, ends)
			at[j] = stay || step
			alive = alive || at[j]
		}
		if !alive {
			return false
		}
		skipStars(ops, &at)
	}
	return at[len(ops)]
}

// skipStars lets every wildcard that has been reached match nothing.
func skipStars(ops []op, at *[maxGlobBytes + 1]bool) {
	for j, o := range ops {
		if at[j] && o.kind >= opStar {
			at[j+1] = true
		}
	}
}

// coversOps reports whether pattern b matches all that pattern p matches: b is
// matched against p's own text, where only a wildcard takes a wildcard.
func coversOps(b, p []op) bool {
	at := make([]bool, len(b)+1)
	at[0] = true
	skip := func() {
		for j, o := range b {
			if at[j] && o.kind >= opStar {
				at[j+1] = true
			}
		}
	}
	skip()
	for _, o := range p {
		for j := len(b); j >= 0; j-- {
			stay := at[j] && j < len(b) && (b[j].kind == opStars || b[j].kind == opStar && o.kind != opSep && o.kind != opStars)
			step := j > 0 && at[j-1] && b[j-1].kind <= opSep && b[j-1] == o
			at[j] = stay || step
		}
		skip()
	}
	return at[len(b)]
}

// meetOps reports whether some name is matched by both patterns.
func meetOps(a, b []op) bool {
	// next holds the row below: next[j] is whether a[i+1:] and b[j:] meet.
	next, row := make([]bool, len(b)+1), make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				row[j] = true
			case i < len(a) && a[i].kind >= opStar:
				row[j] = next[j] || j < len(b) && a[i].absorbs(b[j]) && row[j+1]
				// b's wildcard may end here or take what a's wildcard takes.
				row[j] = row[j] || j < len(b) && b[j].kind >= opStar && row[j+1]
			case j < len(b) && b[j].kind >= opStar:
				row[j] = row[j+1] || i < len(a) && b[j].absorbs(a[i]) && next[j]
			default:
				row[j] = i < len(a) && j < len(b) && a[i] == b[j] && next[j+1]
			}
		}
		next, row = row, next
	}
	return next[0]
}

// absorbs reports whether a wildcard can take what a plain op stands for.
func (o op) absorbs(p op) bool {
	return p.kind == opByte || p.kind == opSep && o.kind == opStars
}
