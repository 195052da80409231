package console

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// How pieces of text are shown.
const (
	plainPiece  = ""
	hiddenPiece = "hidden" // the name of a character that does not show
	oddPiece    = "odd"    // a letter of another alphabet than the word around it
	foldedPiece = "folded" // what stands for a long stretch of nothing
)

// piece is a part of a text that others wrote, as it is shown.
type piece struct{ Kind, Text string }

// Bounds of white space: more pushes what follows out of sight.
const (
	maxBlank = 40 // blanks in a row
	maxLines = 3  // empty lines in a row
	maxMarks = 3  // combining marks on a character
)

// code splits a statement so that nothing in it is hidden: what does not print, or changes
// the order of what does, is named, letters that only look like those around them are
// marked, and long stretches of white space are folded. Lines and indents stay. What is
// shown can be read back: only the folded and the named parts are not the text itself.
func code(s string) []piece { return split(s, true) }

// line splits a name or another short text: its line breaks are named too.
func line(s string) []piece { return split(s, false) }

func split(s string, lines bool) []piece {
	if lines {
		s = strings.ReplaceAll(s, "\r\n", "\n") // the digest knows the difference; it means nothing
	}
	p := pieces{odd: oddLetters(s)}
	marks := 0
	for i := 0; i < len(s); {
		if n, folded, kept := fold(s[i:], lines); n > 0 {
			p.add(foldedPiece, folded)
			p.add(plainPiece, kept)
			i += n
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if unicode.In(r, unicode.Mn, unicode.Me) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && size == 1:
			p.add(hiddenPiece, fmt.Sprintf("byte %02X", s[i]))
		case lines && (r == '\n' || r == '\t'):
			p.add(plainPiece, s[i:i+size])
		case hides(r) || marks > maxMarks:
			p.add(hiddenPiece, fmt.Sprintf("U+%04X", r))
		case p.odd[i]:
			p.add(oddPiece, s[i:i+size])
		default:
			p.add(plainPiece, s[i:i+size])
		}
		i += size
	}
	return p.end()
}

// pieces gathers pieces; neighbours of one kind become one.
type pieces struct {
	all  []piece
	odd  map[int]bool // by offset in the text
	kind string
	text strings.Builder
	same int // how often a hidden character stands in a row
}

func (p *pieces) add(kind, text string) {
	switch {
	case text == "":
		return
	case kind == hiddenPiece && kind == p.kind && p.text.String() == text:
		p.same++
		return
	case kind != p.kind || kind == hiddenPiece || kind == foldedPiece:
		p.end()
	}
	p.kind, p.same = kind, 1
	p.text.WriteString(text)
}

func (p *pieces) end() []piece {
	if text := p.text.String(); text != "" {
		if p.same > 1 {
			text += fmt.Sprintf(" × %d", p.same)
		}
		p.all = append(p.all, piece{p.kind, text})
		p.text.Reset()
	}
	return p.all
}

// hides reports whether a character does not show, or changes how others do. Fillers and
// the blank of Braille are letters and symbols to Unicode that look like nothing; spaces
// that are not U+0020 look like it.
func hides(r rune) bool {
	return !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) || r == 0x2800
}

// fold takes a stretch of white space at the start of s that is too long to show: n bytes
// of it, what stands for them, and what is shown behind.
func fold(s string, lines bool) (n int, folded, kept string) {
	blanks := 0
	for blanks < len(s) && (s[blanks] == ' ' || lines && s[blanks] == '\t') {
		blanks++
	}
	if blanks > maxBlank {
		return blanks, fmt.Sprintf("%d blanks", blanks), ""
	}
	if !lines || s == "" || s[0] != '\n' {
		return 0, "", ""
	}
	breaks, end := 0, 0 // line breaks, and where the last one ends
	for i := 0; i < len(s) && strings.IndexByte(" \t\n", s[i]) >= 0; i++ {
		if s[i] == '\n' {
			breaks, end = breaks+1, i+1
		}
	}
	if breaks-1 <= maxLines {
		return 0, "", ""
	}
	return end, fmt.Sprintf("%d empty lines", breaks-1), "\n"
}

// oddLetters finds, in words with letters of ASCII, those of other alphabets (UTS #39, 5:
// mixed-script detection, reduced to what SQL is written in).
func oddLetters(s string) map[int]bool {
	odd := map[int]bool{}
	var word []int // offsets of foreign letters in the word so far
	ascii := false
	end := func() {
		if ascii {
			for _, i := range word {
				odd[i] = true
			}
		}
		word, ascii = word[:0], false
	}
	for i, r := range s {
		switch {
		case r == '_' || r >= '0' && r <= '9' || unicode.IsMark(r):
		case r < utf8.RuneSelf && unicode.IsLetter(r):
			ascii = true
		case unicode.IsLetter(r) || unicode.Is(unicode.Nl, r):
			if !unicode.Is(unicode.Latin, r) || r >= 0xFF00 || unicode.Is(unicode.Nl, r) {
				word = append(word, i)
			}
		default:
			end()
		}
	}
	end()
	return odd
}

// short is the beginning of a text for a list.
func short(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	for i := range s {
		if most == 0 {
			return s[:i] + "…"
		}
		most--
	}
	return s
}
