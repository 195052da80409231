package sqlmeta

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Bounds of what is parsed at all.
const (
	// MaxText is the length from which on a text is not looked at, bytes.
	MaxText = 1 << 20
	// MaxDepth bounds the nesting that a statement's tokens can make. The parser
	// overflows its stack at about 23,000 (research: libs.md, need 1), the protobuf
	// decoder gives up at 5,000.
	MaxDepth = 5000
	// MaxStatements bounds the statements of one text.
	MaxStatements = 4096
)

// Reasons not to parse a text.
var (
	ErrTooLong = errors.New("the statement is too long to look at")
	ErrTooDeep = errors.New("the statement is nested too deeply to look at")
	ErrNotText = errors.New("the statement is not valid UTF-8 text")
	ErrMisread = errors.New("the statement has a string that goes on behind a comment, which parsers read in different ways")
)

// Guard reports whether sql may be given to the parser: nil, ErrTooLong,
// ErrTooDeep, ErrNotText or ErrMisread. It takes about four nanoseconds a byte.
func Guard(sql string) error {
	if len(sql) >= MaxText {
		return ErrTooLong
	}
	if strings.IndexByte(sql, 0) >= 0 || !utf8.ValidString(sql) {
		return ErrNotText
	}
	deepest, ambiguous := depthOf(sql)
	if deepest > MaxDepth {
		return ErrTooDeep
	}
	if ambiguous {
		return ErrMisread
	}
	return nil
}

// Deeper reports whether the parse tree of sql may be deeper than n, by an upper
// estimate. sql has passed Guard.
func Deeper(sql string, n int) bool {
	deepest, _ := depthOf(sql)
	return deepest > n
}

// level is what one open parenthesis can nest. Elements of a list lie side by
// side, so operators count up to the next comma only; set operations and joins
// chain across commas.
type level struct {
	base   int // depth that the levels around it have reached
	ops    int // operators of the present element
	inner  int // deepest closed parenthesis of the present element
	widest int // deepest element before the present one
	chain  int
}

func (v *level) depth() int { return v.chain + max(v.widest, v.ops+v.inner) }

// depthOf is an upper estimate of how deep the parse tree of any statement of
// the text can be, or MaxDepth+1 as soon as it is more than MaxDepth. ambiguous
// is the lexer's.
func depthOf(sql string) (deepest int, ambiguous bool) {
	l := lexer{text: sql}
	levels := make([]level, 1, 16)
	for {
		t := l.next()
		v := &levels[len(levels)-1]
		switch t.kind {
		case tokEnd:
			return deepest, l.ambiguous
		case tokOperator:
			// A run such as "- - -" without spaces is one operator to the scanner,
			// but '-', '+' and ':' split in ways that are cheap to over-count.
			v.ops += t.end - t.start
		case tokWord:
			switch w := nestingWord(sql[t.start:t.end]); w {
			case nestsElement:
				v.ops++
			case nestsChain:
				v.chain++
			}
		case tokOther:
			switch sql[t.start] {
			case '(', '[':
				levels = append(levels, level{base: v.base + v.chain + v.ops + v.inner + 1})
			case ')', ']':
				if len(levels) > 1 {
					d := v.depth() + 1
					levels = levels[:len(levels)-1]
					v = &levels[len(levels)-1]
					v.inner = max(v.inner, d)
				}
			case ',':
				v.widest = max(v.widest, v.ops+v.inner)
				v.ops, v.inner = 0, 0
			case ';':
				if len(levels) == 1 {
					*v = level{}
				}
			}
		}
		v = &levels[len(levels)-1]
		deepest = max(deepest, v.base+v.depth())
		if deepest > MaxDepth {
			return MaxDepth + 1, l.ambiguous
		}
	}
}

type nesting uint8

const (
	nestsNothing nesting = iota
	nestsElement
	nestsChain
)

// nestingWord says how a keyword deepens the tree.
func nestingWord(w string) nesting {
	if len(w) < 2 || len(w) > 9 {
		return nestsNothing
	}
	var buf [9]byte
	for i := range len(w) {
		c := w[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		buf[i] = c
	}
	switch string(buf[:len(w)]) {
	case "not", "and", "or", "is", "isnull", "notnull", "in", "like", "ilike", "similar", "between",
		"at", "collate", "case", "any", "some", "all", "operator", "overlaps", "escape", "prior", "array", "row":
		return nestsElement
	case "union", "intersect", "except", "join", "natural", "select", "with", "values", "lateral", "explain":
		return nestsChain
	}
	return nestsNothing
}

// backslashes reports whether a plain string constant of sql holds a backslash.
func backslashes(sql string) bool {
	if strings.IndexByte(sql, '\\') < 0 {
		return false
	}
	l := lexer{text: sql}
	for l.next().kind != tokEnd {
	}
	return l.backslash
}
