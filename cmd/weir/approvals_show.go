package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/approval"
)

// field is a part of a request's description: a word and lines.
type field struct {
	label string
	lines []string
	text  bool // to be kept as it is, below its label
}

// describe says everything about a request, in words. What matters most to somebody
// who decides comes first.
func describe(r *approval.Request, now time.Time) []field {
	var f []field
	add := func(label string, lines ...string) {
		if len(lines) > 0 && lines[0] != "" {
			f = append(f, field{label: label, lines: lines})
		}
	}
	add("Request", oneLine(r.ID)+", "+statusLine(r, now))
	actions := actionsOf(r)
	for i := range actions {
		a := &actions[i]
		label := "What"
		if len(actions) > 1 {
			label = fmt.Sprintf("What %d/%d", i+1, len(actions))
		}
		add(label, what(a)...)
		f = append(f, field{lines: textLines(a.Text), text: true})
		for p, v := range a.Params {
			f = append(f, field{lines: []string{fmt.Sprintf("$%d = %s", p+1, strings.Join(textLines(v), "<U+000A>"))}, text: true})
		}
		if i < len(r.Preview) {
			add("Preview", previewLines(&r.Preview[i])...)
		}
	}
	add("Who", who(&r.Principal, r.Requester)...)
	add("Where", where(r))
	add("State", settings(r.State)...)
	add("Needs", needLines(r)...)
	add("Decisions", decisionLines(r)...)
	add("If approved", grantWords(r.Grant))
	if len(r.BreakGlass) > 0 {
		add("Break-glass", "the requester may go through at once, with a reason and a review, if in "+oneLine(strings.Join(r.BreakGlass, " or ")))
	}
	add("Asked", r.Created.Local().Format(time.DateTime))
	add("Digest", oneLine(r.Digest))
	add("Nonce", oneLine(r.Nonce))
	return f
}

// clock is a moment, without its day when that is today.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

func statusLine(r *approval.Request, now time.Time) string {
	text := statusText(r)
	if t := left(r, now); t != "" {
		verb := "ends"
		if r.Status == approval.Pending {
			verb = "expires"
		}
		text += fmt.Sprintf("; %s in %s (%s)", verb, t, clock(r.Expires, now))
	}
	if o := outcome(r); r.Status != approval.Pending && o != statusText(r) {
		text += "; " + o
	}
	if r.Review == reviewOpen {
		text += "; another person has yet to review it"
	}
	return text
}

// noWhere warns of a statement that takes everything.
const noWhere = "THERE IS NO WHERE: it is for every row"

func what(a *approval.Action) []string {
	text := strings.Join(a.Verbs, ", ")
	if len(a.Resources) > 0 {
		text += " on " + strings.Join(a.Resources, ", ")
	}
	lines := []string{oneLine(text)}
	if len(a.Functions) > 0 {
		lines = append(lines, "calls "+oneLine(strings.Join(a.Functions, ", ")))
	}
	if a.Unrestricted {
		lines = append(lines, noWhere)
	}
	if strings.ContainsFunc(strings.NewReplacer("\r\n", "", "\n", "", "\t", "").Replace(a.Text), hides) {
		lines = append(lines, "the text holds characters that do not show; they stand as <U+...>")
	}
	return lines
}

func previewLines(p *approval.Preview) []string {
	var lines []string
	if p.Rows != nil {
		lines = append(lines, fmt.Sprintf("it would touch %d rows", *p.Rows))
	}
	if p.Note != "" {
		lines = append(lines, oneLine(p.Note))
	}
	if p.Plan != "" {
		lines = append(lines, "plan:")
		for _, l := range textLines(p.Plan) {
			lines = append(lines, "  "+l)
		}
	}
	return lines
}

func who(p *approval.Person, name string) []string {
	lines := []string{oneLine(name)}
	if p.Kind != "" {
		lines[0] += " (" + oneLine(p.Kind) + ")"
	}
	if len(p.Groups) > 0 {
		lines = append(lines, "groups "+oneLine(strings.Join(p.Groups, ", ")))
	}
	if p.Subject != "" {
		lines = append(lines, "subject "+oneLine(p.Subject)+" at "+oneLine(p.Issuer))
	}
	for a := p.Actor; a != nil; a = a.Actor {
		lines = append(lines, "through "+oneLine(personName(a))+", subject "+oneLine(a.Subject)+" at "+oneLine(a.Issuer))
	}
	return lines
}

func where(r *approval.Request) string {
	text := oneLine(r.Backend) + " (" + oneLine(r.Protocol) + ")"
	if r.Database != "" {
		text += ", database " + oneLine(r.Database)
	}
	if r.Login != "" {
		text += ", login " + oneLine(r.Login)
	}
	return text + ", from node " + oneLine(r.Node) + ", flow " + oneLine(r.Flow)
}

func settings(list []approval.Setting) []string {
	var lines []string
	for _, s := range list {
		lines = append(lines, oneLine(s.Name)+" = "+oneLine(s.Value))
	}
	return lines
}

func needLines(r *approval.Request) []string {
	if len(r.Rules) == 0 {
		return []string{needsNow(r)}
	}
	var lines []string
	for _, rule := range r.Rules {
		text := needs(rule.Needed) + `, by rule "` + oneLine(rule.Rule) + `" of policy "` + oneLine(rule.Policy) + `"; `
		if rule.Proof == approval.ProofSession {
			text += "being signed in is enough"
		} else {
			text += "with a sign-in at the identity provider for this very request"
			if rule.Prompt != "" {
				text += ", prompt " + oneLine(rule.Prompt)
			}
			if rule.MaxAge > 0 {
				text += fmt.Sprintf(", not older than %s", time.Duration(rule.MaxAge)*time.Second)
			}
		}
		if rule.RequireReason {
			text += "; a reason is required"
		}
		lines = append(lines, text)
	}
	return lines
}

func decisionLines(r *approval.Request) []string {
	var lines []string
	for _, d := range r.Decisions {
		text := fmt.Sprintf("%s %s, %s (proof: %s)", oneLine(d.User), oneLine(string(d.Decided)), d.At.Local().Format(time.DateTime), oneLine(d.Proof))
		if d.Reason != "" {
			text += ": " + oneLine(d.Reason)
		}
		lines = append(lines, text)
	}
	if r.Broke != nil {
		lines = append(lines, oneLine(r.Broke.By)+" broke the glass: "+oneLine(r.Broke.Reason))
	}
	return lines
}

func grantWords(grant string) string {
	switch grant {
	case "":
		return ""
	case "once":
		return "exactly this runs, once"
	case "session":
		return "exactly this may run, as often as wanted, until the connection ends"
	}
	return "exactly this may run, as often as wanted, for " + oneLine(grant)
}

// labelWidth is the width of the column of labels, in cells.
const labelWidth = 13

// lay sets a description in lines of a width in cells; 0 for any.
func lay(fields []field, width int) []string {
	var out []string
	for _, f := range fields {
		if f.text {
			const indent = "    "
			out = appendBlank(out)
			for _, l := range f.lines {
				for _, part := range wrapped(l, max(0, width-len(indent))) {
					out = append(out, strings.TrimRight(indent+part, " "))
				}
			}
			out = append(out, "")
			continue
		}
		label := f.label
		for _, l := range f.lines {
			for _, part := range wrapped(l, max(0, width-labelWidth)) {
				out = append(out, strings.TrimRight(fmt.Sprintf("%-*s%s", labelWidth, label, part), " "))
				label = ""
			}
		}
	}
	return out
}

// appendBlank separates what follows by one blank line.
func appendBlank(out []string) []string {
	if len(out) > 0 && out[len(out)-1] != "" {
		return append(out, "")
	}
	return out
}

// printApproval is `weir approvals show`.
func printApproval(w io.Writer, r *approval.Request, now time.Time, width int) error {
	lines := lay(describe(r, now), width)
	if err := checkDocument(r); err != nil {
		lines = append(lines, "", "WARNING: "+err.Error())
	}
	lines = append(append(lines, ""), howTo(r)...)
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// howTo gives the command lines that a request can take.
func howTo(r *approval.Request) []string {
	id := oneLine(r.ID)
	var lines []string
	if r.Status == approval.Pending {
		reason := ""
		for _, rule := range r.Rules {
			if rule.RequireReason {
				reason = ` --reason "..."`
			}
		}
		lines = append(lines,
			"To approve it:  weir approvals approve "+id+reason,
			"  or with an ID token made elsewhere with this nonce:  weir approvals approve "+id+reason+" --token-file FILE",
			"To refuse it:   weir approvals deny "+id+` --reason "..."`)
	}
	if r.Status == approval.Pending || r.Status == approval.Approved {
		lines = append(lines, "To take it back, as its requester or after an approval:  weir approvals withdraw "+id)
	}
	if r.Status == approval.Pending && len(r.BreakGlass) > 0 {
		lines = append(lines, "To go through at once, as its requester:  weir approvals break-glass "+id+` --reason "..."`)
	}
	if r.Review == reviewOpen {
		lines = append(lines, "To close the review:  weir approvals review "+id+` --reason "..."`)
	}
	if lines == nil {
		lines = append(lines, "It has ended; there is nothing left to decide.")
	}
	return lines
}
