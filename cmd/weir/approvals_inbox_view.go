package main

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/weirproxy/weir/internal/approval"
)

// Bounds of the screen, in cells. What is smaller is filled as if it were this.
const (
	minInboxWidth  = 40
	minInboxHeight = 10
	// frameLines are the title, the columns' names, the separator, the status and the keys.
	frameLines = 5
	// minListRows is how many requests are shown at least, if there are as many.
	minListRows = 3
	// soon is when a request's time is marked as short.
	soon = time.Minute
)

// Styles use the sixteen colours that every terminal's owner has chosen.
var (
	styleTitle = lipgloss.NewStyle().Bold(true).Reverse(true)
	styleBold  = lipgloss.NewStyle().Bold(true)
	styleFaint = lipgloss.NewStyle().Faint(true)
	styleNew   = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Yellow)
	styleBad   = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red)
	styleGood  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	styleText  = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
)

func (m *inbox) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "weir approvals: " + m.title()
	return v
}

// screen is what is to be seen, a line each, as many as the terminal has.
func (m *inbox) screen() []string {
	w, h := m.size()
	lines := []string{m.titleLine(w)}
	status := m.statusLines(w)
	body := h - frameLines - (len(status) - 1)
	switch {
	case len(m.rows) == 0:
		lines = append(lines, m.emptyLines(w, body+2)...)
	case m.details:
		lines = append(lines, m.window(m.detailLines(w), body+2, w)...)
	default:
		list := min(len(m.rows), max(minListRows, body/3))
		lines = append(lines, m.listLines(w, list)...)
		lines = append(lines, styleFaint.Render(strings.Repeat("─", w)))
		lines = append(lines, m.window(m.detailLines(w), body-list, w)...)
	}
	return append(append(lines, status...), m.keysLine(w))
}

func (m *inbox) size() (w, h int) { return max(m.width, minInboxWidth), max(m.height, minInboxHeight) }

// maxScroll is how far the details can be scrolled.
func (m *inbox) maxScroll() int {
	w, h := m.size()
	body := h - frameLines - (len(m.statusLines(w)) - 1)
	room := body + 2
	if !m.details {
		room = body - min(len(m.rows), max(minListRows, body/3))
	}
	return max(0, len(m.detailLines(w))-room)
}

// cell is text in a column: cut or filled up to a width.
func cell(s string, width int) string {
	s = fit(s, width)
	return s + strings.Repeat(" ", max(0, width-ansi.StringWidth(s)))
}

func (m *inbox) titleLine(w int) string {
	right := m.now.Local().Format(time.TimeOnly) + " "
	if !m.up {
		right = "not connected "
	}
	return styleTitle.Render(cell(" Approvals: "+m.title(), w-len(right)) + right)
}

func (m *inbox) emptyLines(w, height int) []string {
	text := []string{"", "Nothing waits for a decision.", "", "A request shows up here as soon as an action is held for another person's approval:",
		"those that your groups decide, and your own. You can leave this open."}
	if !m.up && m.down == "" {
		text = []string{"", "Asking the agent ..."}
	}
	var lines []string
	for _, t := range text {
		for _, l := range wrapped(t, w-4) {
			lines = append(lines, "  "+l)
		}
	}
	return fill(lines, height)
}

// fill makes lines exactly so many.
func fill(lines []string, height int) []string {
	height = max(0, height)
	if len(lines) > height {
		return lines[:height]
	}
	return append(lines, make([]string, height-len(lines))...)
}

// columns are the widths of the list.
type columns struct{ who, what, backend, needs, left int }

func columnsOf(w int) columns {
	c := columns{who: max(12, w/4), backend: max(7, w/9), needs: max(9, w/6), left: 7}
	c.what = max(6, w-c.who-c.backend-c.needs-c.left-markWidth-4)
	return c
}

// markWidth is that of the marks before a row.
const markWidth = 6

func (m *inbox) listLines(w, rows int) []string {
	c := columnsOf(w)
	lines := []string{styleFaint.Render(fit(strings.Repeat(" ", markWidth)+cell("WHO", c.who)+" "+cell("WANTS TO", c.what)+" "+
		cell("WHERE", c.backend)+" "+cell("NEEDS", c.needs)+" "+cell("LEFT", c.left), w))}
	at := max(0, m.index(m.selected))
	first := min(max(0, at-rows/2), max(0, len(m.rows)-rows))
	for _, row := range m.rows[first:min(len(m.rows), first+rows)] {
		lines = append(lines, m.rowLine(row, c, w))
	}
	return lines
}

func (m *inbox) rowLine(row *inboxRow, c columns, w int) string {
	r := &row.request
	mark := "  "
	if r.ID == m.selected {
		mark = "▸ "
	}
	text := cell(requesterName(r), c.who) + " " + cell(summary(r), c.what) + " "
	if !row.ended.IsZero() {
		return styleFaint.Render(cell(mark+"    "+text+row.what, w))
	}
	text += cell(oneLine(r.Backend), c.backend) + " "
	switch {
	case r.Review == reviewOpen:
		text += cell("a review", c.needs)
	case r.Status == approval.Approved:
		text += cell("granted", c.needs)
	default:
		text += cell(needsNow(r), c.needs)
	}
	time := cell(left(r, m.now), c.left)
	style := lipgloss.NewStyle()
	if r.ID == m.selected {
		style = styleBold
	}
	isNew := "    "
	if m.isNew(row) {
		isNew = styleNew.Render("NEW ")
	}
	if r.Status == approval.Pending && r.Expires.Sub(m.now) < soon {
		time = styleBad.Render(time)
	}
	return fit(style.Render(mark)+isNew+style.Render(text)+" "+time, w)
}

// window shows a part of lines that are more than there is room for.
func (m *inbox) window(lines []string, height, w int) []string {
	if height <= 0 {
		return nil
	}
	if len(lines) <= height {
		return fill(lines, height)
	}
	from := min(max(0, m.scroll), len(lines)-height)
	shown := append([]string(nil), lines[from:from+height]...)
	if more := len(lines) - from - height; more > 0 {
		how := "enter shows all"
		if m.details {
			how = "down shows more"
		}
		shown[height-1] = styleFaint.Render(fit(fmt.Sprintf("   ... %d lines more, %s", more+1, how), w))
	}
	return shown
}

func (m *inbox) detailLines(w int) []string {
	if m.signIn != nil {
		return m.signInLines(w)
	}
	row := m.chosen()
	if row == nil {
		return nil
	}
	var lines []string
	for _, f := range describe(&row.request, m.now) {
		if f.text {
			lines = appendBlank(lines)
		}
		for _, l := range lay([]field{f}, w) {
			switch {
			case f.text:
				l = styleText.Render(l)
			case strings.Contains(l, noWhere):
				l = styleBad.Render(l)
			}
			lines = append(lines, l)
		}
	}
	if err := checkDocument(&row.request); err != nil {
		for _, l := range wrapped("WARNING: "+err.Error(), w) {
			lines = append(lines, styleBad.Render(l))
		}
	}
	if !row.ended.IsZero() {
		for i, l := range lines {
			lines[i] = styleFaint.Render(ansi.Strip(l))
		}
	}
	return lines
}

// signInLines says what to do to sign in, and for what.
func (m *inbox) signInLines(w int) []string {
	s := m.signIn
	r := &s.request
	lines := []string{styleBold.Render(fit("Approving for "+requesterName(r)+": "+summary(r), w)), fit("on "+where(r), w), ""}
	switch {
	case s.url != "":
		lines = append(lines, "Sign in to approve: open this address in a browser on this machine.", "")
		link := lipgloss.NewStyle().Underline(true).Hyperlink(s.url)
		for rest := s.url; rest != ""; {
			part := ansi.Truncate(rest, w, "")
			if part == "" {
				break
			}
			lines = append(lines, link.Render(part))
			rest = rest[len(part):]
		}
		return append(lines, "", "Waiting for the sign-in. Esc gives up; nothing is decided then.")
	case len(s.lines) == 0:
		return append(lines, "One moment ...")
	}
	for _, l := range s.lines {
		lines = append(lines, wrapped(l, w)...)
	}
	return append(lines, "", "Waiting for the sign-in. Esc gives up; nothing is decided then.")
}

// maxStatus is how many lines of what happened last are shown.
const maxStatus = 3

// statusLines are the question for a reason, or what happened last.
func (m *inbox) statusLines(w int) []string {
	if m.asking != nil {
		return []string{m.questionLine(w)}
	}
	text, style := m.status, styleGood
	switch {
	case m.down != "":
		text, style = "No news from the agent, trying again: "+m.down, styleBad
	case m.busy != "":
		text, style = m.busy+" ...", styleBold
	case m.statusBad:
		style = styleBad
	}
	lines := wrapped(text, w)
	if len(lines) > maxStatus {
		lines = lines[:maxStatus]
		lines[maxStatus-1] = fit(lines[maxStatus-1], w-1) + "…"
	}
	for i, l := range lines {
		lines[i] = style.Render(fit(l, w))
	}
	return lines
}

func (m *inbox) questionLine(w int) string {
	q := m.asking
	label := "Reason to " + q.verb
	if q.required {
		label += " (required): "
	} else {
		label += " (enter for none): "
	}
	text := q.text
	if room := max(1, w-len(label)-1); ansi.StringWidth(text) > room {
		text = ansi.TruncateLeft(text, ansi.StringWidth(text)-room, "")
	}
	line := styleBold.Render(label) + text + styleTitle.Render(" ")
	if m.statusBad && q.required && q.text == "" {
		line += styleBad.Render(" type one")
	}
	return fit(line, w)
}

// keysLine says which keys do something now. Where there is no room for all, those that
// the chosen request cannot take are left out.
func (m *inbox) keysLine(w int) string {
	row := m.chosen()
	switch {
	case m.asking != nil:
		return fit("enter "+m.asking.verb+"  esc back  ctrl+u clears", w)
	case m.signIn != nil && m.signIn.url != "":
		return fit("c copy the address  esc give up", w)
	case m.signIn != nil:
		return fit("esc give up", w)
	case row == nil:
		return "q quit"
	}
	parts := []string{"↑↓ choose", "enter details"}
	if m.details {
		parts = []string{"↑↓ scroll", "enter back"}
	}
	full, short := parts, parts[:len(parts):len(parts)]
	for _, k := range []struct{ key, verb string }{{"a", "approve"}, {"d", "deny"}, {"w", "withdraw"}, {"b", "break-glass"}, {"r", "review"}} {
		text := k.key + " " + k.verb
		if m.cannot(k.verb, row) != "" {
			full = append(full, styleFaint.Render(text))
			continue
		}
		text = styleBold.Render(text)
		full, short = append(full, text), append(short, text)
	}
	line := strings.Join(append(full, "q quit"), "  ")
	if ansi.StringWidth(line) > w {
		line = strings.Join(append(short, "q quit"), "  ")
	}
	return fit(line, w)
}
