package sqlmeta

// token is a lexical element of PostgreSQL's SQL (manual, 4.1), as coarse as the
// guard needs it.
type token struct {
	kind       tokenKind
	start, end int // bytes
}

type tokenKind uint8

const (
	tokEnd    tokenKind = iota
	tokWord             // identifier or keyword without quotes
	tokQuoted           // "identifier"
	tokString           // any kind of string or bit string constant
	tokNumber
	tokParam // $1
	tokOperator
	tokOther // ( ) [ ] , ; . and anything else: one byte
)

// lexer cuts text into tokens the way PostgreSQL's scanner does with
// standard_conforming_strings on. It accepts everything: what the real scanner
// refuses is refused by the parser behind it.
type lexer struct {
	text string
	pos  int
	// backslash is set when a plain '...' held a backslash: with
	// standard_conforming_strings off that text reads differently.
	backslash bool
	// ambiguous is set when a constant goes on behind a comment: the server joins
	// the parts, libpg_query does not.
	ambiguous bool
}

func (l *lexer) next() token {
	l.skipSpace()
	start := l.pos
	if start >= len(l.text) {
		return token{tokEnd, start, start}
	}
	kind := l.scan(l.text[start])
	return token{kind, start, l.pos}
}

func (l *lexer) scan(c byte) tokenKind {
	switch {
	case isIdentStart(c):
		return l.word()
	case c == '\'':
		l.quoted(plainString)
		return tokString
	case c == '"':
		l.identifier()
		return tokQuoted
	case isDigit(c), c == '.' && isDigit(l.at(1)):
		for l.pos < len(l.text) && (isIdentPart(l.text[l.pos]) || l.text[l.pos] == '.') && l.text[l.pos] != '$' {
			l.pos++
		}
		return tokNumber
	case c == '$':
		return l.dollar()
	case isOperator(c):
		for l.pos < len(l.text) && isOperator(l.text[l.pos]) && !l.comment() {
			l.pos++
		}
		return tokOperator
	}
	l.pos++
	return tokOther
}

// at is the byte n after the present one, 0 beyond the end.
func (l *lexer) at(n int) byte {
	if l.pos+n >= len(l.text) {
		return 0
	}
	return l.text[l.pos+n]
}

// comment reports whether a comment begins here.
func (l *lexer) comment() bool {
	return l.at(0) == '-' && l.at(1) == '-' || l.at(0) == '/' && l.at(1) == '*'
}

func (l *lexer) skipSpace() {
	for l.pos < len(l.text) {
		switch {
		case isSpace(l.text[l.pos]):
			l.pos++
		case l.at(0) == '-' && l.at(1) == '-':
			l.lineComment()
		case l.at(0) == '/' && l.at(1) == '*':
			l.blockComment()
		default:
			return
		}
	}
}

func (l *lexer) lineComment() {
	for l.pos < len(l.text) && l.text[l.pos] != '\n' && l.text[l.pos] != '\r' {
		l.pos++
	}
}

// blockComment skips a comment; PostgreSQL's nest.
func (l *lexer) blockComment() {
	depth := 0
	for l.pos < len(l.text) {
		switch {
		case l.at(0) == '/' && l.at(1) == '*':
			depth++
			l.pos += 2
		case l.at(0) == '*' && l.at(1) == '/':
			depth--
			l.pos += 2
			if depth == 0 {
				return
			}
		default:
			l.pos++
		}
	}
}

// word scans an identifier, or the string or quoted identifier whose prefix it
// is: E”, B”, X”, N”, U&”, U&"".
func (l *lexer) word() tokenKind {
	c := l.text[l.pos] | 0x20
	switch {
	case l.at(1) == '\'' && c == 'e':
		l.pos++
		l.quoted(escapeString)
		return tokString
	case l.at(1) == '\'' && (c == 'b' || c == 'x'):
		l.pos++
		l.quoted(bitString)
		return tokString
	case l.at(1) == '\'' && c == 'n':
		l.pos++
		l.quoted(plainString)
		return tokString
	case c == 'u' && l.at(1) == '&' && l.at(2) == '\'':
		l.pos += 2
		l.quoted(plainString)
		return tokString
	case c == 'u' && l.at(1) == '&' && l.at(2) == '"':
		l.pos += 2
		l.identifier()
		return tokQuoted
	}
	for l.pos < len(l.text) && isIdentPart(l.text[l.pos]) {
		l.pos++
	}
	return tokWord
}

// stringKind is how a string constant treats quotes and backslashes.
type stringKind uint8

const (
	plainString  stringKind = iota // '' is a quote
	escapeString                   // E'': so is \'
	bitString                      // B'', X'': the next quote ends it
)

// quoted scans from an opening quote over the whole constant with its
// continuations on later lines, which are of the same kind.
func (l *lexer) quoted(kind stringKind) {
	for {
		l.pos++ // the opening quote
		l.quotedPart(kind)
		next := l.continuation()
		if next < 0 {
			return
		}
		l.pos = next
	}
}

func (l *lexer) quotedPart(kind stringKind) {
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case c == '\\' && kind == escapeString:
			l.pos += 2
		case c == '\\' && kind == plainString:
			l.backslash = true
			l.pos++
		case c == '\'' && l.at(1) == '\'' && kind != bitString:
			l.pos += 2
		case c == '\'':
			l.pos++
			return
		default:
			l.pos++
		}
	}
	l.pos = len(l.text)
}

// continuation is the position of the quote that goes on with a constant: white
// space with at least one line end, and line comments, may stand between. -1
// without one.
func (l *lexer) continuation() int {
	newline, comment := false, false
	for i := l.pos; i < len(l.text); i++ {
		switch c := l.text[i]; {
		case c == '\n' || c == '\r':
			newline = true
		case isSpace(c):
		case c == '-' && i+1 < len(l.text) && l.text[i+1] == '-':
			comment = true
			for i+1 < len(l.text) && l.text[i+1] != '\n' && l.text[i+1] != '\r' {
				i++
			}
		case c == '\'' && newline:
			l.ambiguous = l.ambiguous || comment
			return i
		default:
			return -1
		}
	}
	return -1
}

func (l *lexer) identifier() {
	l.pos++
	for l.pos < len(l.text) {
		if l.text[l.pos] != '"' {
			l.pos++
			continue
		}
		if l.at(1) != '"' {
			l.pos++
			return
		}
		l.pos += 2
	}
}

// dollar scans $1, $tag$...$tag$ or a lone dollar.
func (l *lexer) dollar() tokenKind {
	if isDigit(l.at(1)) {
		l.pos++
		for isDigit(l.at(0)) {
			l.pos++
		}
		return tokParam
	}
	end := l.pos + 1
	for end < len(l.text) && isIdentPart(l.text[end]) && l.text[end] != '$' {
		end++
	}
	if end >= len(l.text) || l.text[end] != '$' {
		l.pos++
		return tokOther
	}
	tag := l.text[l.pos : end+1]
	l.pos = end + 1
	for l.pos < len(l.text) {
		if l.text[l.pos] == '$' && len(l.text)-l.pos >= len(tag) && l.text[l.pos:l.pos+len(tag)] == tag {
			l.pos += len(tag)
			return tokString
		}
		l.pos++
	}
	return tokString
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isIdentStart(c byte) bool {
	return c == '_' || c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isIdentPart(c byte) bool { return isIdentStart(c) || isDigit(c) || c == '$' }

func isOperator(c byte) bool {
	switch c {
	case '~', '!', '@', '#', '^', '&', '|', '`', '?', '+', '-', '*', '/', '%', '<', '>', '=', ':':
		return true
	}
	return false
}
