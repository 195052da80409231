package pglog

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// prefix reads the lines of a log to stderr, which begin with log_line_prefix.
type prefix struct {
	clock
	re     *regexp.Regexp
	fields []byte // the escape of each group
}

// escapes is what each escape of log_line_prefix looks like (PostgreSQL manual, 20.8.3).
var escapes = map[byte]string{
	'a': `(.*?)`, 'u': `(.*?)`, 'd': `(.*?)`, 'r': `(.*?)`, 'h': `(.*?)`, 'L': `(.*?)`, 'b': `(.*?)`, 'i': `(.*?)`,
	'p': `(\d+)`, 'P': `(\d*)`, 'l': `(\d+)`, 'x': `(\d+)`, 'Q': `(-?\d+)`, 'v': `([\d/]*)`, 'e': `(\w{5})`, 'c': `([0-9a-f]+\.[0-9a-f]+)`,
	'm': `(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+)`, 't': `(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+)`, 's': `(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+)`,
	'n': `(\d+\.\d{3})`,
}

// newPrefix refuses a prefix with which sessions cannot be told apart.
func newPrefix(text string, c clock) (*prefix, error) {
	p := &prefix{clock: c}
	var re strings.Builder
	re.WriteString(`^`)
	ends := ""
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			re.WriteString(regexp.QuoteMeta(text[i : i+1]))
			continue
		}
		i++
		for i < len(text) && (text[i] == '-' || text[i] >= '0' && text[i] <= '9') {
			i++ // padding
		}
		switch {
		case i == len(text):
			return nil, fmt.Errorf("log_line_prefix %q ends in the middle of an escape", text)
		case text[i] == '%':
			re.WriteString(`%`)
		case text[i] == 'q':
			re.WriteString(`(?:`)
			ends += `)?`
		case escapes[text[i]] == "":
			return nil, fmt.Errorf("log_line_prefix %q: %%%c is not known", text, text[i])
		default:
			re.WriteString(` *` + escapes[text[i]] + ` *`)
			p.fields = append(p.fields, text[i])
		}
	}
	has := func(any string) bool { return strings.ContainsAny(string(p.fields), any) }
	if !has("p") || !has("a") || !has("mtn") {
		return nil, fmt.Errorf("log_line_prefix %q does not tell sessions apart: it has to have %%m (or %%t, %%n), %%p and %%a; use csvlog or jsonlog, which have them", text)
	}
	re.WriteString(ends + `([A-Z]+[0-9]?):  ((?s:.*))$`)
	p.fields = append(p.fields, 0, 0)
	var err error
	if p.re, err = regexp.Compile(re.String()); err != nil {
		return nil, fmt.Errorf("log_line_prefix %q: %w", text, err)
	}
	return p, nil
}

func (p *prefix) line(rec []byte) (l line, ok bool) {
	m := p.re.FindSubmatch(rec)
	if m == nil {
		return l, false
	}
	for i, f := range p.fields {
		s := string(m[i+1])
		switch f {
		case 'a':
			l.Application = s
		case 'u':
			l.User = s
		case 'd':
			l.Database = s
		case 'h':
			l.Client = s
		case 'r':
			if i := strings.LastIndexByte(s, '('); i > 0 { // host(port)
				l.Client, l.Port = s[:i], strings.TrimSuffix(s[i+1:], ")")
			} else {
				l.Client = s
			}
		case 'p':
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return l, false
			}
			l.PID = uint32(n)
		case 'm', 't':
			if l.Time, ok = p.read(s); !ok {
				return l, false
			}
		case 'n':
			f, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return l, false
			}
			l.Time = time.UnixMilli(int64(f * 1000))
		case 's':
			l.Started, _ = p.read(s)
		}
	}
	l.severity = string(m[len(m)-2])
	// A line feed of the message is followed by a tab that the server has put there.
	l.message = strings.ReplaceAll(string(m[len(m)-1]), "\n\t", "\n")
	return l, true
}
