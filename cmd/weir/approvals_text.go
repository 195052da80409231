package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"

	"github.com/weirproxy/weir/internal/approval"
)

// visible shows characters that a terminal would obey or hide as <U+202E>, as less(1)
// does: controls, marks that turn the direction of text, spaces that are none. What an
// approver reads is then what runs.
func visible(s string) string {
	if !strings.ContainsFunc(s, hides) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "<%02X>", s[0])
		case hides(r):
			fmt.Fprintf(&b, "<U+%04X>", r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

func hides(r rune) bool { return !unicode.IsPrint(r) }

// oneLine shows text from others in one line.
func oneLine(s string) string {
	return visible(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\n' || r == '\r' || r == '\t' }), " "))
}

// textLines shows text from others in its own lines.
func textLines(s string) []string {
	lines := strings.Split(strings.Trim(strings.ReplaceAll(s, "\r\n", "\n"), "\n"), "\n")
	for i, l := range lines {
		lines[i] = visible(strings.ReplaceAll(strings.TrimRight(l, " "), "\t", "    "))
	}
	return lines
}

// fit cuts a line to a width in cells; 0 for any.
func fit(s string, width int) string {
	if width <= 0 {
		return s
	}
	return ansi.Truncate(s, width, "…")
}

// wrapped breaks a line at a width in cells, between words where it can; 0 for any.
func wrapped(s string, width int) []string {
	if width <= 0 || ansi.StringWidth(s) <= width {
		return []string{s}
	}
	return strings.Split(ansi.Wrap(s, width, ""), "\n")
}

// actionsOf are all actions of a request.
func actionsOf(r *approval.Request) []approval.Action {
	if len(r.Actions) > 0 {
		return r.Actions
	}
	return []approval.Action{r.Action}
}

// summary says what a request wants: "delete shop.orders".
func summary(r *approval.Request) string {
	var parts []string
	for _, a := range actionsOf(r) {
		text := strings.Join(a.Verbs, ",")
		objects := a.Resources
		if len(objects) == 0 {
			objects = a.Functions
		}
		text += " " + strings.Join(objects, ", ")
		if a.Unrestricted {
			text += " (no WHERE: all rows)"
		}
		if p := oneLine(text); !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "; ")
}

// needs says whose approval a request wants: "1 of dba and 2 of ops or lead".
func needs(list []approval.Needed) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = fmt.Sprintf("%d of %s", n.Count, oneLine(strings.Join(n.Groups, " or ")))
	}
	return strings.Join(words, " and ")
}

func approvers(r *approval.Request) []string {
	var names []string
	for _, d := range r.Decisions {
		if d.Decided == approval.DecidedApproved {
			names = append(names, oneLine(d.User))
		}
	}
	return names
}

// needsNow adds to needs how far it has come.
func needsNow(r *approval.Request) string {
	text := needs(r.Needed)
	if n := len(approvers(r)); n > 0 {
		text += fmt.Sprintf(", %d so far", n)
	}
	return text
}

func requesterName(r *approval.Request) string {
	name := oneLine(r.Requester)
	for a := r.Principal.Actor; a != nil; a = a.Actor {
		name = oneLine(personName(a)) + " for " + name
	}
	return name
}

func personName(p *approval.Person) string {
	if p.User != "" {
		return p.User
	}
	return p.Subject
}

// open reports whether a request waits for somebody, or its grant goes on.
func open(r *approval.Request) bool {
	return r.Status == approval.Pending || r.Status == approval.Approved || r.Review == reviewOpen
}

// reviewOpen is Request.Review while another person has to look.
const reviewOpen = "open"

// statusText is a request's status in a word or two.
func statusText(r *approval.Request) string {
	text := oneLine(string(r.Status))
	if r.Review == reviewOpen {
		text += ", review"
	}
	return text
}

// outcome says what has become of a request.
func outcome(r *approval.Request) string {
	switch {
	case r.Broke != nil && (r.Status == approval.Approved || r.Status == approval.Used):
		return "let through at once by " + oneLine(r.Broke.By) + ": " + oneLine(r.Broke.Reason)
	case r.Ended != "":
		text := oneLine(r.Ended)
		for _, d := range r.Decisions {
			if d.Decided == approval.DecidedDenied && d.Reason != "" {
				text += ": " + oneLine(d.Reason)
			}
		}
		return text
	case len(approvers(r)) > 0 && r.Status != approval.Pending:
		return statusText(r) + ", approved by " + strings.Join(approvers(r), ", ")
	}
	return statusText(r)
}

// left is the time until a request or its grant ends, "" when it has ended.
func left(r *approval.Request, now time.Time) string {
	if r.Status != approval.Pending && r.Status != approval.Approved || r.Expires.IsZero() {
		return ""
	}
	d := max(0, r.Expires.Sub(now)).Truncate(time.Second)
	if d >= time.Hour {
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
}

// shortIDs gives each id the shortest end, of minShortID characters at least, that no
// other has.
func shortIDs(requests []approval.Request) map[string]string {
	short := make(map[string]string, len(requests))
	for n := shownID; ; n++ {
		seen := map[string]bool{}
		for i := range requests {
			id := requests[i].ID
			short[id] = id[max(0, len(id)-n):]
			seen[short[id]] = true
		}
		if len(seen) == len(short) || n >= fullID {
			return short
		}
	}
}

const (
	// fullID is the length of a request's id, a ULID.
	fullID = 26
	// minShortID is how much of an id one must give.
	minShortID = 6
	// shownID is how much of an id a narrow list shows.
	shownID = 8
	// wideList is the width from which a list shows whole ids, in cells.
	wideList = 120
	// minAction is the least width of the column ACTION, in cells.
	minAction = 20
)

// printApprovals is the table of `weir approvals list`; width is that of the terminal, 0
// when there is none.
func printApprovals(w io.Writer, requests []approval.Request, now time.Time, width int) error {
	const header = "ID\tSTATUS\tREQUESTER\tBACKEND\tACTION\tNEEDS\tEXPIRES IN"
	short := map[string]string{}
	if width > 0 && width < wideList {
		short = shortIDs(requests)
	}
	const action = 4 // the column that is cut where the terminal is narrow
	titles := strings.Split(header, "\t")
	widest := make([]int, len(titles))
	for i, t := range titles {
		widest[i] = len(t)
	}
	rows := make([][]string, len(requests))
	for i := range requests {
		r := &requests[i]
		id, need := r.ID, ""
		if s := short[id]; s != "" {
			id = s
		}
		if r.Status == approval.Pending {
			need = needsNow(r)
		}
		rows[i] = []string{oneLine(id), statusText(r), requesterName(r), oneLine(r.Backend), summary(r), or(need), or(left(r, now))}
		for c, cell := range rows[i] {
			widest[c] = max(widest[c], ansi.StringWidth(cell))
		}
	}
	if width > 0 {
		room := width
		for c, n := range widest {
			if c != action {
				room -= n + 2 // the space between columns
			}
		}
		for _, cells := range rows {
			cells[action] = fit(cells[action], max(minAction, room))
		}
	}
	return table(w, header, func(row func(...any)) {
		for _, cells := range rows {
			all := make([]any, len(cells))
			for c, cell := range cells {
				all[c] = cell
			}
			row(all...)
		}
	})
}
