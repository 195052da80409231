package evidence

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of tables.
const (
	maxCell   = 8 << 10 // bytes of a cell; events.jsonl has the whole
	maxShown  = 200     // rows of a table in the HTML page
	maxSheet  = 50_000  // rows of a table in the workbook
	maxGroups = 200_000 // rows that are counted together in memory, of each table
)

// table is a report in rows: a CSV file, a sheet of the workbook, a part of the HTML
// page and of the PDF.
type table struct {
	name  string // tables/NAME.csv
	title string
	about string // for people: what a row says, and what not
	head  []string

	rows  int
	shown [][]string // the first maxShown
	csv   *bufio.Writer
	sheet func(cells []string) error // nil: none
	err   error
}

// add writes a row.
func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = cell(cells[i])
	}
	if t.rows < maxShown {
		t.shown = append(t.shown, slices.Clone(cells))
	}
	if t.rows < maxSheet && t.sheet != nil && t.err == nil {
		t.err = t.sheet(cells)
	}
	t.rows++
	t.line(cells)
}

func (t *table) line(cells []string) {
	for i, c := range cells {
		if i > 0 {
			_ = t.csv.WriteByte(',')
		}
		writeCell(t.csv, c)
	}
	_, _ = t.csv.WriteString("\r\n") // RFC 4180; the error is Flush's
}

func (t *table) begin(w io.Writer) {
	t.csv = bufio.NewWriter(w)
	t.line(t.head)
}

func (t *table) end() error {
	if t.err != nil {
		return t.err
	}
	return t.csv.Flush()
}

// square stands for a character that cannot be seen.
const square = '\u25a1'

// writeCell quotes every cell (RFC 4180): one that holds the separator of another
// country stays one cell.
func writeCell(w *bufio.Writer, s string) {
	_ = w.WriteByte('"')
	for i := strings.IndexByte(s, '"'); i >= 0; i = strings.IndexByte(s, '"') {
		_, _ = w.WriteString(s[:i+1])
		_ = w.WriteByte('"')
		s = s[i+1:]
	}
	_, _ = w.WriteString(s)
	_ = w.WriteByte('"')
}

// cell makes text that others chose safe to show: on one line, without characters
// that cannot be seen or that turn the direction of writing, no longer than maxCell,
// and nothing that a spreadsheet takes for a formula.
func cell(s string) string {
	s = plain(s)
	if len(s) > maxCell {
		n := maxCell
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "… (cut; events.jsonl has all of it)"
	}
	if formula(s) {
		s = "'" + s
	}
	return s
}

// formula reports whether a spreadsheet might read the text as a formula, a command
// (DDE) or a number with effect: by its first character that is no space, since some
// cut spaces off; full-width and other forms of these characters included, since
// some fold them (OWASP, CSV Injection).
func formula(s string) bool {
	s = strings.TrimLeftFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '"' || r == '\'' || r == square })
	r, _ := utf8.DecodeRuneInString(s)
	return strings.ContainsRune("=+-@|%\\\uff1d\uff0b\uff0d\uff20\uff5c\uff05\ufe62\ufe63\ufe66\ufe6b\ufe6a\u2212\u2010\u2011\u2012\u2013\u2014\u207a\u207b\u207c\u208a\u208b\u208c", r) && s != ""
}

// plain makes characters visible that are none: those of control, of format (also
// the ones that turn the direction), and what is no UTF-8.
func plain(s string) string {
	bad := func(r rune) bool { return r == utf8.RuneError || unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case bad(r):
			return square
		}
		return r
	}, s)
}
