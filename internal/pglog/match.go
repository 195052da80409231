package pglog

import "strings"

// pending is an action that waits for its statement in the server's log.
type pending struct {
	id     string
	text   string // trimmed
	cut    bool   // the record holds the beginning only
	call   bool   // a call of a function by its OID
	status string // of the outcome; "" before it is known
	at     int64  // ns
}

// fits reports how many actions from the start of the list on are what text holds: the
// statements of one string in turn. more is set when the list ended before the text did.
func fits(text string, list []*pending) (n int, more bool) {
	rest := skipBlank(text)
	for i, p := range list {
		if p.text == "" && rest != "" || p.call || !strings.HasPrefix(rest, p.text) {
			return 0, false
		}
		if p.cut {
			return i + 1, false
		}
		if rest = skipBlank(rest[len(p.text):]); rest == "" {
			return i + 1, false
		}
	}
	return 0, true
}

// skipBlank skips what stands between statements: white space, semicolons and comments,
// which nest (PostgreSQL manual, 4.1.5).
func skipBlank(s string) string {
	for {
		s = strings.TrimLeft(s, " \t\n\r\f\v;")
		switch {
		case strings.HasPrefix(s, "--"):
			i := strings.IndexAny(s, "\n\r")
			if i < 0 {
				return ""
			}
			s = s[i+1:]
		case strings.HasPrefix(s, "/*"):
			depth, i := 1, 2
			for ; i < len(s) && depth > 0; i++ {
				switch {
				case strings.HasPrefix(s[i:], "/*"):
					depth++
					i++
				case strings.HasPrefix(s[i:], "*/"):
					depth--
					i++
				}
			}
			s = s[min(i, len(s)):]
		default:
			return s
		}
	}
}

// trimmed is a recorded text as it is compared.
func trimmed(text string) string { return strings.TrimRight(skipBlank(text), " \t\n\r\f\v;") }
