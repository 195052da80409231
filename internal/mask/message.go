package mask

import (
	"bytes"
	"strings"
)

// messageQuotes are what messages put around values, in any language that the
// server speaks; the marks of one line open and close each other.
var messageQuotes = [][]string{
	{`"`}, {`'`, "`", "‘", "’", "‚"}, {"«", "»"}, {"‹", "›"}, {"„", "“", "”"}, {"「", "」"}, {"『", "』"},
}

// RedactMessage appends the text of an error or a notice without what may be a
// value of a masked column: everything from the first quotation mark to the last
// (to the end, when one is left open), and every number of three digits or more.
// Names are lost with it: a value can be made to stand where a name does, and may
// hold quotation marks itself.
//
// It is for the message field only. DETAIL, HINT, CONTEXT and internal queries
// are to be left out, and a message that a program wrote (RAISE, SQLSTATE P0001
// or any from a function body) is to be replaced by Redacted as a whole.
func RedactMessage(dst, msg []byte) []byte {
	first, last := len(msg), 0
	for _, marks := range messageQuotes {
		n := 0
		for _, q := range marks {
			for from := 0; ; {
				i := bytes.Index(msg[from:], []byte(q))
				if i < 0 {
					break
				}
				i += from
				from = i + len(q)
				if !isApostrophe(msg, i, q) {
					first, last, n = min(first, i), max(last, from), n+1
				}
			}
		}
		if n%2 == 1 {
			last = len(msg)
		}
	}
	if first >= last {
		return redactNumbers(dst, msg)
	}
	dst = redactNumbers(dst, msg[:first])
	dst = append(dst, Redacted...)
	return redactNumbers(dst, msg[last:])
}

// isApostrophe tells the one in "can't" from a quotation mark.
func isApostrophe(msg []byte, i int, q string) bool {
	if q != `'` && q != "’" {
		return false
	}
	return i > 0 && isLetter(msg[i-1]) && bytes.HasPrefix(msg[i+len(q):], []byte("t")) &&
		(i+len(q)+1 >= len(msg) || !isWord(msg[i+len(q)+1])) && msg[i-1] == 'n'
}

// shortNumber is the number of digits from which a number is hidden.
const shortNumber = 3

func redactNumbers(dst, msg []byte) []byte {
	for i := 0; i < len(msg); {
		if !isDigit(msg[i]) {
			dst = append(dst, msg[i])
			i++
			continue
		}
		end, digits := i, 0
		for end < len(msg) && (isHex(msg[end]) || strings.IndexByte("xX.,:-", msg[end]) >= 0) {
			if isDigit(msg[end]) {
				digits++
			}
			end++
		}
		// Punctuation at the end is the sentence's.
		for !isHex(msg[end-1]) {
			end--
		}
		if digits >= shortNumber || bytes.ContainsAny(msg[i:end], "xX") {
			dst = append(dst, Redacted...)
		} else {
			dst = append(dst, msg[i:end]...)
		}
		i = end
	}
	return dst
}
