package sqlmeta

import (
	"fmt"
	"strings"
)

// SplitDump makes plain SQL of what psql would be given: commands of psql's own (lines
// that begin with a backslash, outside of strings and comments) and the data between
// COPY ... FROM stdin and \. become empty lines, so that every line keeps its number.
// Commands that would have read other files, or gone to another database, are named in
// the warnings.
func SplitDump(text string) (sql string, warnings []string) {
	s := splitter{l: lexer{text: text}, out: strings.Builder{}}
	s.out.Grow(len(text))
	for s.next() {
	}
	s.out.WriteString(text[s.kept:])
	return s.out.String(), s.warnings
}

// splitter goes over the text of a dump, statement by statement.
type splitter struct {
	l        lexer
	out      strings.Builder
	kept     int // what lies before it is in out, or left out
	warnings []string
	cut      statementEnd
}

func (s *splitter) next() bool {
	t := s.l.next()
	text := s.l.text
	switch {
	case t.kind == tokEnd:
		return false
	case text[t.start] == '\\' && (t.start == 0 || text[t.start-1] == '\n'):
		end := lineEnd(text, t.start)
		s.command(text[t.start:end], t.start)
		s.blank(t.start, end)
	case s.cut.take(text, t):
		if s.cut.copies {
			s.data(t.end)
		}
		s.cut = statementEnd{}
	}
	return true
}

// blank leaves out a part of the text apart from its line ends.
func (s *splitter) blank(start, end int) {
	s.out.WriteString(s.l.text[s.kept:start])
	for range strings.Count(s.l.text[start:end], "\n") {
		s.out.WriteByte('\n')
	}
	s.kept, s.l.pos = end, end
}

// data leaves out the lines behind the one where COPY ends. Without \. the data goes on
// to the end of the text.
func (s *splitter) data(copied int) {
	text := s.l.text
	start := min(lineEnd(text, copied)+1, len(text))
	end := start
	for end < len(text) {
		next := lineEnd(text, end)
		last := strings.TrimSuffix(text[end:next], "\r") == `\.`
		end = min(next+1, len(text))
		if last {
			break
		}
	}
	s.blank(start, end)
}

// command warns of commands of psql that change what the file means.
func (s *splitter) command(line string, at int) {
	name, _, _ := strings.Cut(strings.TrimRight(line[1:], "\r"), " ")
	why := ""
	switch name {
	case "i", "ir", "include", "include_relative":
		why = "includes another file, which is not read; give it to weir as well"
	case "c", "connect":
		why = "goes to another database; all that follows is taken for one and the same database"
	case "if", "elif", "else":
		why = "makes statements depend on a condition; all branches are taken"
	case "g", "gx", "gexec", "gset", "gdesc", "crosstabview", "watch":
		why = `ends a statement, which weir takes to go on; write ";" instead`
	default:
		return
	}
	s.warnings = append(s.warnings, fmt.Sprintf(`line %d: psql's \%s %s`, 1+strings.Count(s.l.text[:at], "\n"), name, why))
}

// lineEnd is where the line ends that holds a position: at its line end, or the end of
// the text.
func lineEnd(text string, at int) int {
	if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i
	}
	return len(text)
}

// statementEnd finds the semicolon that ends a statement as psql does (psqlscan.l): not
// one in parentheses, nor in the BEGIN ATOMIC ... END of a function.
type statementEnd struct {
	words  int       // words so far
	first  [4]string // the first of them, in lower case
	parens int
	begins int
	from   bool
	copies bool // COPY ... FROM stdin
}

// take looks at a token and reports whether it ends the statement.
func (e *statementEnd) take(text string, t token) bool {
	switch {
	case t.kind == tokWord:
		e.word(asciiLower(text[t.start:t.end]))
	case t.kind != tokOther:
	case text[t.start] == '(':
		e.parens++
	case text[t.start] == ')':
		e.parens = max(0, e.parens-1)
	case text[t.start] == ';':
		return e.parens == 0 && e.begins == 0
	}
	if t.kind != tokWord {
		e.from = false
	}
	return false
}

func (e *statementEnd) word(w string) {
	if e.words < len(e.first) {
		e.first[e.words] = w
	}
	e.words++
	switch {
	case e.first[0] == "copy" && e.parens == 0:
		e.copies = e.copies || e.from && w == "stdin"
		e.from = w == "from"
	case e.parens > 0 || !e.createsFunction():
	case w == "begin", w == "case" && e.begins > 0:
		e.begins++
	case w == "end" && e.begins > 0:
		e.begins--
	}
}

// createsFunction reports whether the statement begins with CREATE [OR REPLACE]
// {FUNCTION | PROCEDURE}.
func (e *statementEnd) createsFunction() bool {
	kind := e.first[1]
	if kind == "or" && e.first[2] == "replace" {
		kind = e.first[3]
	}
	return e.first[0] == "create" && (kind == "function" || kind == "procedure")
}

// Pieces cuts text between statements into parts that follow each other. A part is
// longer than size only when it is one statement.
func Pieces(text string, size int) []string {
	var out []string
	start, end := 0, 0 // of the part, and of its last whole statement
	flush := func() {
		if end > start {
			out = append(out, text[start:end])
			start = end
		}
	}
	l := lexer{text: text}
	var cut statementEnd
	for {
		t := l.next()
		if t.kind != tokEnd && !cut.take(text, t) {
			continue
		}
		next := t.end
		if t.kind == tokEnd {
			next = len(text)
		}
		if next-start > size {
			flush()
		}
		end = next
		if t.kind == tokEnd {
			flush()
			return out
		}
		cut = statementEnd{}
	}
}
