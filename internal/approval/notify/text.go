package notify

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what a message shows, besides those of Slack: 150 characters of a header,
// 2000 of a field, 3000 of a section.
const (
	maxCode  = 300  // characters of a statement
	codeRoom = 2400 // bytes, once they are escaped
	maxName  = 80   // characters of a name
	nameRoom = 400  // bytes, once they are escaped
	maxWords = 1500 // characters of an answer to a click
)

// escaped is the beginning of s in which every character can be seen: what does not
// print, or changes the order of what does, and what is in special, is written as
// \u{hex}, and &, < and > as Slack wants them. It takes at most runes characters and
// makes at most room bytes; rest is how many characters are left.
func escaped(s string, runes, room int, special string, plain string) (out string, rest int) {
	var b strings.Builder
	for i, r := range s {
		var piece string
		switch {
		case r == utf8.RuneError && strings.HasPrefix(s[i:], "\ufffd"):
			piece = "\ufffd"
		case r == utf8.RuneError:
			piece = fmt.Sprintf(`\x{%02x}`, s[i])
		case r == '&':
			piece = "&amp;"
		case r == '<':
			piece = "&lt;"
		case r == '>':
			piece = "&gt;"
		case strings.ContainsRune(special, r) || !strconv.IsPrint(r) && !strings.ContainsRune(plain, r):
			piece = fmt.Sprintf(`\u{%x}`, r)
		default:
			piece = string(r)
		}
		if runes == 0 || b.Len()+len(piece) > room {
			return b.String(), utf8.RuneCountInString(s[i:])
		}
		b.WriteString(piece)
		runes--
	}
	return b.String(), 0
}

// name shows a short text in Slack's mrkdwn: inside of backticks nothing is formatted
// or becomes a link or a mention.
func name(s string) string { return inline(s, maxName, nameRoom) }

// quote is like name, for a sentence.
func quote(s string) string { return inline(s, maxCode, codeRoom) }

func inline(s string, runes, room int) string {
	if s == "" {
		return "-"
	}
	out, rest := escaped(s, runes, room, "`", "")
	if rest > 0 {
		out += "…"
	}
	return "`" + out + "`"
}

// names shows a list, as far as there is room.
func names(list []string) string {
	const most = 12
	var b strings.Builder
	for i, s := range list {
		if i == most || b.Len() > 800 {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name(s))
	}
	return b.String()
}

// code shows a statement as a block. A fence in it is broken up.
func code(s string) (block string, rest int) {
	out, rest := escaped(s, maxCode, codeRoom, "", "\n\t")
	out = strings.ReplaceAll(out, "```", "``\\u{60}")
	return "```\n" + out + "\n```", rest
}

// words shows text of ours that may quote others.
func words(s string) string {
	out, rest := escaped(s, maxWords, 2*maxWords, "", "\n")
	if rest > 0 {
		out += "…"
	}
	return out
}

// when shows a moment in the reader's own time zone.
func when(t time.Time) string {
	return fmt.Sprintf("<!date^%d^{date_short_pretty} {time_secs}|%s>", t.Unix(), t.UTC().Format(time.RFC3339))
}
