package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/weirproxy/weir/internal/approval"
)

const (
	// endedStays is how long a request that has ended is still shown.
	endedStays = 8 * time.Second
	// newFor is how old a request may be, when it comes, to be marked as new until it has
	// been looked at.
	newFor = 10 * time.Second
	// maxReasonInput bounds a reason, bytes; the agent takes no more.
	maxReasonInput = 2000
)

// Messages to an inbox, besides those of its feed and of the terminal.
type (
	inboxTick time.Time
	// signInText is what a person must read to sign in.
	signInText struct{ text string }
	// inboxDecided is what came of a decision.
	inboxDecided struct {
		verb    string
		id      string
		request *approval.Request
		err     error
		gaveUp  bool
	}
)

// inboxDo is what an inbox can have done. The outcomes come as messages.
type inboxDo interface {
	// Approve signs in if it must, and approves.
	Approve(r *approval.Request, reason string) tea.Cmd
	// GiveUp ends the sign-in that is under way.
	GiveUp()
	Decide(verb, id, reason string) tea.Cmd
	// Look asks for a request: what it would do is then found out, if it was not.
	Look(id string) tea.Cmd
}

// inboxRow is a request in an inbox.
type inboxRow struct {
	request approval.Request
	looked  bool      // it has been chosen, or is old
	ended   time.Time // zero while it is open
	what    string    // what has become of it
}

// inbox is `weir approvals watch` in a terminal: messages in, a screen out.
type inbox struct {
	do            inboxDo
	now           time.Time
	width, height int

	rows     []*inboxRow // newest first
	selected string      // id
	looked   string      // id of the last one that was looked at
	details  bool        // the chosen one fills the screen
	scroll   int         // lines of the details that are above the screen

	up   bool   // the agent answers
	down string // why it does not

	asking *question
	signIn *signInState
	busy   string // a decision that is under way

	status    string // what happened last
	statusBad bool
}

// question is one for a reason, before a decision.
type question struct {
	verb     string
	id       string
	required bool
	text     string
}

// signInState is a sign-in under way.
type signInState struct {
	request approval.Request
	url     string
	lines   []string // anything else to read
}

func newInbox(do inboxDo, now time.Time) *inbox {
	return &inbox{do: do, now: now, width: 80, height: 24}
}

func (m *inbox) Init() tea.Cmd { return tickInbox() }

func tickInbox() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return inboxTick(t) })
}

func (m *inbox) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	cmd := m.update(msg)
	if row := m.chosen(); row != nil && m.looked != m.selected {
		m.looked = m.selected
		if row.ended.IsZero() && len(row.request.Preview) == 0 && slices.Contains(row.request.May, "deny") {
			cmd = tea.Batch(cmd, m.do.Look(m.selected))
		}
	}
	return m, cmd
}

func (m *inbox) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case inboxTick:
		m.now = time.Time(msg)
		m.sweep()
		return tickInbox()
	case feedUp:
		if m.down != "" {
			m.say("the agent answers again", false)
		}
		m.up, m.down = true, ""
	case feedDown:
		m.up, m.down = false, downText(msg.err)
	case feedGone:
		if row := m.row(msg.id); row != nil && row.ended.IsZero() {
			row.ended, row.what = m.now, "you may not see it any more"
		}
	case feedNews:
		m.take(&msg.request)
	case signInText:
		m.takeSignIn(msg.text)
	case inboxDecided:
		m.decided(&msg)
	case tea.PasteMsg:
		if m.asking != nil {
			m.asking.add(msg.Content)
		}
	case tea.KeyPressMsg:
		return m.key(msg)
	}
	return nil
}

func (m *inbox) say(text string, bad bool) { m.status, m.statusBad = text, bad }

func (m *inbox) row(id string) *inboxRow {
	if i := m.index(id); i >= 0 {
		return m.rows[i]
	}
	return nil
}

func (m *inbox) index(id string) int {
	return slices.IndexFunc(m.rows, func(r *inboxRow) bool { return r.request.ID == id })
}

func (m *inbox) chosen() *inboxRow { return m.row(m.selected) }

// take puts a request in, or what has become of it.
func (m *inbox) take(r *approval.Request) {
	row := m.row(r.ID)
	switch {
	case row == nil && !open(r):
		return
	case row == nil:
		old := m.now.Sub(r.Created) >= newFor // it was there before this inbox was
		row = &inboxRow{looked: old}
		at, _ := slices.BinarySearchFunc(m.rows, r, func(x *inboxRow, r *approval.Request) int { return r.Created.Compare(x.request.Created) })
		m.rows = slices.Insert(m.rows, at, row)
		if !old {
			m.say("new: "+requesterName(r)+", "+summary(r), false)
		}
	case open(r) && len(approvers(r)) > len(approvers(&row.request)) && r.Status == approval.Pending:
		m.say("approved by "+strings.Join(approvers(r), ", ")+"; it needs "+needsNow(r), false)
	}
	row.request = *r
	switch {
	case open(r):
		row.ended, row.what = time.Time{}, ""
	case row.ended.IsZero():
		row.ended, row.what = m.now, outcome(r)
		if m.signIn != nil && m.signIn.request.ID == r.ID && r.Status != approval.Used {
			m.do.GiveUp() // a sign-in for it would be for nothing
		}
		if m.asking != nil && m.asking.id == r.ID {
			m.asking = nil
			m.say("it has ended meanwhile: "+row.what, true)
		}
	}
	if m.chosen() == nil {
		m.choose(r.ID)
	}
}

// sweep takes away what ended some time ago.
func (m *inbox) sweep() {
	at := m.index(m.selected)
	m.rows = slices.DeleteFunc(m.rows, func(r *inboxRow) bool { return !r.ended.IsZero() && m.now.Sub(r.ended) >= endedStays })
	if m.chosen() != nil {
		return
	}
	m.selected, m.details, m.scroll = "", false, 0
	if len(m.rows) > 0 {
		m.choose(m.rows[min(max(at, 0), len(m.rows)-1)].request.ID)
	}
}

func (m *inbox) choose(id string) {
	if m.selected != id {
		m.scroll = 0
	}
	m.selected = id
}

// isNew reports whether a row is to be marked as new.
func (m *inbox) isNew(r *inboxRow) bool {
	return r.ended.IsZero() && !r.looked
}

func (m *inbox) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	switch {
	case name == "ctrl+c":
		return tea.Quit
	case m.asking != nil:
		return m.keyReason(k, name)
	case m.signIn != nil:
		return m.keySignIn(name)
	}
	if row := m.chosen(); row != nil {
		row.looked = true
	}
	switch name {
	case "q":
		return tea.Quit
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup":
		m.scroll -= max(1, m.height/2)
	case "pgdown", "space":
		m.scroll += max(1, m.height/2)
	case "home", "g":
		m.scroll = 0
	case "enter":
		m.details, m.scroll = !m.details && m.chosen() != nil, 0
	case "esc":
		m.details, m.scroll = false, 0
	case "a":
		return m.begin("approve")
	case "d":
		return m.begin("deny")
	case "w":
		return m.begin("withdraw")
	case "b":
		return m.begin("break-glass")
	case "r":
		return m.begin("review")
	}
	m.scroll = min(max(m.scroll, 0), m.maxScroll())
	return nil
}

// move chooses another row, or scrolls the details when they fill the screen.
func (m *inbox) move(by int) {
	if m.details {
		m.scroll += by
		return
	}
	at := m.index(m.selected)
	if next := at + by; at >= 0 && next >= 0 && next < len(m.rows) {
		m.rows[at].looked = true
		m.rows[next].looked = true
		m.choose(m.rows[next].request.ID)
	}
}

// begin starts a decision on the chosen request.
func (m *inbox) begin(verb string) tea.Cmd {
	row := m.chosen()
	switch {
	case row == nil:
		m.say("there is nothing to decide yet", true)
		return nil
	case m.busy != "":
		m.say("wait: "+m.busy, true)
		return nil
	}
	if why := m.cannot(verb, row); why != "" {
		m.say(why, true)
		return nil
	}
	row.looked = true
	r := &row.request
	if verb == "approve" && wantsSignIn(r) && !wantsReason(r) {
		return m.approve(r, "") // the sign-in is the second thought
	}
	m.asking = &question{verb: verb, id: r.ID, required: verb == "break-glass" || verb == "approve" && wantsReason(r)}
	return nil
}

// cannot says why the viewer cannot decide so, "" when they can as far as is known.
func (m *inbox) cannot(verb string, row *inboxRow) string {
	r := &row.request
	switch {
	case !row.ended.IsZero():
		return "it has ended: " + row.what
	case slices.Contains(r.May, verb):
		return ""
	case verb == "approve" && r.Status == approval.Pending:
		// Who signs in for it decides, which may be another person than this login's.
		return ""
	case verb == "approve" || verb == "deny":
		if r.Status != approval.Pending {
			return "it is not waiting any more: " + statusText(r)
		}
		return "only another person, signed in (weir login) and in " + groupsOf(r) + ", may deny it"
	case verb == "withdraw":
		return "only its requester, or after an approval one of " + groupsOf(r) + ", may withdraw it"
	case verb == "break-glass":
		return "only its requester may break the glass, where the rule allows it"
	}
	return "there is no review that you may close here"
}

func groupsOf(r *approval.Request) string {
	var all []string
	for _, n := range r.Needed {
		for _, g := range n.Groups {
			if g = oneLine(g); !slices.Contains(all, g) {
				all = append(all, g)
			}
		}
	}
	return strings.Join(all, " or ")
}

func (m *inbox) approve(r *approval.Request, reason string) tea.Cmd {
	m.signIn = &signInState{request: *r}
	return m.do.Approve(r, reason)
}

func (m *inbox) keySignIn(name string) tea.Cmd {
	switch name {
	case "esc", "q":
		m.do.GiveUp()
	case "c":
		if m.signIn.url != "" {
			m.say("the address is in the clipboard, if your terminal allows that", false)
			return tea.SetClipboard(m.signIn.url)
		}
	}
	return nil
}

func (m *inbox) keyReason(k tea.KeyPressMsg, name string) tea.Cmd {
	q := m.asking
	switch name {
	case "esc":
		m.asking = nil
		m.say("nothing was decided", false)
	case "enter":
		reason := strings.TrimSpace(q.text)
		row := m.row(q.id)
		switch {
		case reason == "" && q.required:
			m.say("a reason is required: type it, or Esc to go back", true)
			return nil
		case row == nil:
			m.asking = nil
			return nil
		}
		m.asking = nil
		if q.verb == "approve" {
			return m.approve(&row.request, reason)
		}
		m.busy = q.verb + " " + q.id
		return m.do.Decide(q.verb, q.id, reason)
	case "backspace":
		if _, n := utf8.DecodeLastRuneInString(q.text); n > 0 {
			q.text = q.text[:len(q.text)-n]
		}
	case "ctrl+u":
		q.text = ""
	default:
		q.add(k.Text)
	}
	return nil
}

// add appends what was typed or pasted, in one line.
func (q *question) add(text string) {
	for _, r := range text {
		if r == '\n' || r == '\r' || r == '\t' {
			r = ' '
		}
		if unicode.IsPrint(r) && len(q.text)+utf8.RuneLen(r) <= maxReasonInput {
			q.text += string(r)
		}
	}
}

// takeSignIn reads what the sign-in says: an address to open, or a code.
func (m *inbox) takeSignIn(text string) {
	if m.signIn == nil {
		return
	}
	for _, line := range strings.Split(text, "\n") {
		line = oneLine(line)
		switch {
		case line == "" || strings.Contains(line, "Ctrl-C"): // the keys are others here
		case m.signIn.url == "" && strings.HasPrefix(line, "http"):
			m.signIn.url = line
		default:
			m.signIn.lines = append(m.signIn.lines, line)
		}
	}
}

func (m *inbox) decided(d *inboxDecided) {
	m.busy = ""
	if d.verb == "approve" {
		m.signIn = nil
	}
	switch {
	case d.gaveUp:
		text := "the sign-in was given up; nothing was decided"
		if row := m.row(d.id); row != nil && !row.ended.IsZero() {
			text = "it has ended meanwhile: " + row.what
		}
		m.say(text, true)
	case d.err != nil:
		m.say(oneLine(strings.TrimPrefix(d.err.Error(), "weir: ")), true)
	default:
		m.take(d.request)
		m.say(decisionText(d.verb, d.request), false)
	}
}

// waiting is how many requests wait for a decision.
func (m *inbox) waiting() int {
	n := 0
	for _, r := range m.rows {
		if r.ended.IsZero() && r.request.Status == approval.Pending {
			n++
		}
	}
	return n
}

func (m *inbox) title() string {
	switch n := m.waiting(); n {
	case 0:
		return "nothing waits"
	case 1:
		return "1 request waits"
	default:
		return fmt.Sprintf("%d requests wait", n)
	}
}
