package pglog

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Bounds of what a comparison keeps.
const (
	// maxSkipped bounds how many actions of a session stay in wait behind one that has
	// found its statement: the server takes a session's statements in their order, so that
	// these will hardly find theirs.
	maxSkipped  = 1024
	maxDenied   = 256       // denied actions of a session that are still looked for
	maxWaiting  = 256 << 20 // bytes of all texts that wait
	maxExamples = 100       // of each kind of difference
	maxGroups   = 1000      // of those who went past Weir
	maxExample  = 2 << 10   // bytes of an example's text
	// perPending is what waiting for a statement takes besides its text, bytes, roughly.
	perPending = 160
	// maxText is where a record cuts a statement (flow.MaxRecordedText), less what a
	// character that does not fit may take.
	maxText = 64<<10 - 4
)

// signInTime is how long before flow.open a session may have started at the server.
const signInTime = time.Minute

// Log is the audit log, in its order: auditlog.LogReader.
type Log interface {
	Next() (auditlog.LogEvent, error)
	Skip()
}

// Statements is the server's log, in its order; io.EOF at the end.
type Statements interface{ Next() (*Entry, error) }

// Kind is what a statement of Weir's own is for.
type Kind int

// Kinds of Weir's own statements.
const (
	NotOwn  Kind = iota
	Lookup       // in the system catalogue
	Preview      // of a statement that waits for approval, for its approvers
)

// Config is what is compared. Log, Server, Backend and Own are required.
type Config struct {
	Log      Log
	Server   Statements
	Backend  string    // in the audit log
	From, To time.Time // statements of the server's log that count; zero: all
	// Skew is how far apart the clocks of the two may be.
	Skew time.Duration
	// Own says what a statement is of a session with OwnApplication.
	Own func(*Entry) Kind
	// Excepted are statements that are known to go past Weir: backups, monitoring.
	Excepted func(*Entry) bool
}

// OwnApplication is the application_name of Weir's own connections.
const OwnApplication = "weir:catalogue"

// Result is the outcome of a comparison.
type Result struct {
	Backend    string    `json:"backend"`
	From       time.Time `json:"from"` // of the first and the last statement that was compared
	To         time.Time `json:"to"`
	Statements uint64    `json:"statements"` // of the server's log, in the period
	Matched    uint64    `json:"matched"`    // statements with their actions
	Actions    uint64    `json:"actions"`    // of those: a string may hold several
	Catalogue  uint64    `json:"catalogue"`  // Weir's own look-ups in the system catalogue
	Previews   uint64    `json:"previews"`   // Weir's own counts of rows, for approvers
	// PreviewTexts are some of them: they are made of what somebody had asked for.
	PreviewTexts []string `json:"preview_texts,omitempty"`
	Excepted     uint64   `json:"excepted"`

	// ServerOnly did the server without an action of the audit log that says so.
	ServerOnly ServerOnly `json:"server_only"`
	WeirOnly   WeirOnly   `json:"weir_only"`
	Notes      []string   `json:"notes,omitempty"`
}

// ServerOnly is what the server did and the audit log does not know of.
type ServerOnly struct {
	Statements uint64 `json:"statements"`
	Outside    uint64 `json:"outside"`    // of those: by sessions that are no flow of Weir's
	Unrecorded uint64 `json:"unrecorded"` // of those: by a flow of Weir's, without an action
	Denied     uint64 `json:"denied"`     // of those: by a flow of Weir's, whose action was denied
	// By says who went past Weir.
	By       []Group     `json:"by,omitempty"`
	Examples []Statement `json:"examples,omitempty"`
}

// Group is a user, an application and a client that went past Weir.
type Group struct {
	User        string    `json:"user"`
	Database    string    `json:"database"`
	Application string    `json:"application"`
	Client      string    `json:"client"`
	Statements  uint64    `json:"statements"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
}

// WeirOnly is what was allowed and the server's log has not: it refused it, or does not
// log it.
type WeirOnly struct {
	Actions uint64 `json:"actions"`
	// ByStatus counts them by the outcome that the audit log has: ok, error, cancelled,
	// lost, or "unknown".
	ByStatus map[string]uint64 `json:"by_status,omitempty"`
	Examples []Statement       `json:"examples,omitempty"`
}

// Statement is an example of a difference.
type Statement struct {
	Time        time.Time `json:"time"`
	Why         string    `json:"why"` // outside, unrecorded, denied, or the status of an action
	PID         uint32    `json:"pid"`
	User        string    `json:"user,omitempty"`
	Database    string    `json:"database,omitempty"`
	Application string    `json:"application,omitempty"`
	Client      string    `json:"client,omitempty"`
	Flow        string    `json:"flow,omitempty"`
	Action      string    `json:"action,omitempty"`
	Text        string    `json:"text"`
}

// Complete reports whether the server did nothing that the audit log does not know of.
func (r *Result) Complete() bool { return r.ServerOnly.Statements == 0 }

// session is a flow of Weir's at the server.
type session struct {
	flow    string
	pid     uint32
	opened  time.Time
	closed  time.Time // zero: it is not
	pending []*pending
	denied  []*pending
}

type comparison struct {
	Config
	out     Result
	flows   map[string]*session
	byPID   map[uint32][]*session
	closing []*session // in the order of their end
	byID    map[string]*pending
	next    *event
	done    bool
	waiting int // bytes
	groups  map[Group]*Group
}

// event is as much of an auditlog.Event as matters.
type event struct {
	Time    time.Time        `json:"time"`
	Kind    auditlog.Kind    `json:"kind"`
	Flow    string           `json:"flow"`
	Backend string           `json:"backend"`
	Action  *auditlog.Action `json:"action"`
	Result  *struct {
		Status string `json:"status"`
	} `json:"result"`
	Upstream *auditlog.Upstream `json:"upstream"`
}

// ErrNothing is the error of a comparison without any statement in the server's log.
var ErrNothing = errors.New("the server's log has no statements in the period: PostgreSQL logs them with log_statement = all (or log_min_duration_statement = 0) and lc_messages = C")

// Compare compares. What it returns is whole even when there are differences.
func Compare(ctx context.Context, c Config) (*Result, error) {
	m := &comparison{Config: c, flows: make(map[string]*session), byPID: make(map[uint32][]*session), byID: make(map[string]*pending),
		groups: make(map[Group]*Group)}
	m.out.Backend = c.Backend
	for {
		e, err := c.Server.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !c.From.IsZero() && e.Time.Before(c.From) || !c.To.IsZero() && !e.Time.Before(c.To) {
			continue
		}
		if m.out.Statements == 0 || e.Time.Before(m.out.From) {
			m.out.From = e.Time.UTC()
		}
		if e.Time.After(m.out.To) {
			m.out.To = e.Time.UTC()
		}
		m.out.Statements++
		if err := m.statement(e); err != nil {
			return nil, err
		}
	}
	if m.out.Statements == 0 {
		return nil, ErrNothing
	}
	return &m.out, m.finish()
}

// statement looks for the action of a statement. The action was recorded before the
// server got the statement; as much as the clocks differ the audit log is read ahead.
func (m *comparison) statement(e *Entry) error {
	for {
		fed, err := m.feed(e.Time)
		if err != nil {
			return err
		}
		if fed == nil {
			break
		}
	}
	m.expire(e.Time)
	s := m.sessionOf(e)
	from := 0
	for {
		if s != nil {
			var ok bool
			if ok, from = m.match(s, e, from); ok {
				return nil
			}
		}
		ev, err := m.feed(e.Time.Add(m.Skew))
		if err != nil {
			return err
		}
		if ev == nil {
			break
		}
		if s == nil {
			s = m.sessionOf(e)
		}
	}
	m.unmatched(s, e)
	return nil
}

// sessionOf is the flow that a statement of the server's log is of; nil when there is none.
func (m *comparison) sessionOf(e *Entry) *session {
	var found *session
	for _, s := range m.byPID[e.PID] {
		switch {
		case e.Time.Before(s.opened.Add(-m.Skew)),
			!s.closed.IsZero() && e.Time.After(s.closed.Add(m.Skew)),
			!e.Started.IsZero() && (e.Started.After(s.opened.Add(m.Skew+time.Second)) || e.Started.Before(s.opened.Add(-m.Skew-signInTime))):
			continue
		}
		if strings.HasPrefix(e.Application, "weir:"+s.flow) {
			return s
		}
		found = s
	}
	return found
}

// match looks for a statement among the actions of a session, from an index on. When it
// finds none it returns from where on to look again once there are more.
func (m *comparison) match(s *session, e *Entry, from int) (bool, int) {
	again := len(s.pending)
	for i := from; i < len(s.pending); i++ {
		n, more := 0, false
		if e.Call {
			if s.pending[i].call {
				n = 1
			}
		} else {
			n, more = fits(e.Text, s.pending[i:])
		}
		if more && i < again {
			again = i
		}
		if n == 0 {
			continue
		}
		m.out.Matched++
		m.out.Actions += uint64(n)
		for _, p := range s.pending[i : i+n] {
			m.forget(p)
		}
		s.pending = slices.Delete(s.pending, i, i+n)
		if i > maxSkipped {
			m.weirOnly(s, s.pending[:i-maxSkipped])
			s.pending = slices.Delete(s.pending, 0, i-maxSkipped)
		}
		return true, 0
	}
	return false, again
}

func (m *comparison) forget(p *pending) {
	delete(m.byID, p.id)
	m.waiting -= len(p.text) + perPending
}

// unmatched counts a statement that no action has been found for.
func (m *comparison) unmatched(s *session, e *Entry) {
	why := "outside"
	switch {
	case s != nil:
		why = "unrecorded"
		for i := range s.denied {
			if n, _ := fits(e.Text, s.denied[i:]); n > 0 || e.Call && s.denied[i].call {
				why = "denied"
				break
			}
		}
	case m.own(e):
		return
	case m.Excepted != nil && m.Excepted(e):
		m.out.Excepted++
		return
	}
	so := &m.out.ServerOnly
	so.Statements++
	switch why {
	case "outside":
		so.Outside++
		m.group(e)
	case "denied":
		so.Denied++
	default:
		so.Unrecorded++
	}
	if len(so.Examples) < maxExamples {
		x := Statement{Time: e.Time.UTC(), Why: why, PID: e.PID, User: e.User, Database: e.Database, Application: e.Application, Client: client(e), Text: shortened(e.Text)}
		if s != nil {
			x.Flow = s.flow
		}
		so.Examples = append(so.Examples, x)
	}
}

// own counts what is Weir's own. The name alone proves nothing: anybody can give it.
func (m *comparison) own(e *Entry) bool {
	if e.Application != OwnApplication {
		return false
	}
	switch m.Own(e) {
	case Lookup:
		m.out.Catalogue++
	case Preview:
		m.out.Previews++
		if len(m.out.PreviewTexts) < maxExamples {
			m.out.PreviewTexts = append(m.out.PreviewTexts, shortened(e.Text))
		}
	default:
		return false
	}
	return true
}

func client(e *Entry) string {
	if e.Port == "" || e.Client == "[local]" {
		return e.Client
	}
	return e.Client + ":" + e.Port
}

func shortened(text string) string {
	if len(text) <= maxExample {
		return text
	}
	return strings.ToValidUTF8(text[:maxExample], "") + "…"
}

func (m *comparison) group(e *Entry) {
	key := Group{User: e.User, Database: e.Database, Application: e.Application, Client: e.Client}
	if m.groups[key] == nil && len(m.groups) >= maxGroups {
		key = Group{User: "(others)"}
	}
	g := m.groups[key]
	if g == nil {
		one := key
		one.First = e.Time.UTC()
		g = &one
		m.groups[key] = g
	}
	g.Statements++
	g.Last = e.Time.UTC()
}

// feed takes the next event of the audit log, when it is not after limit. nil: there is
// none.
func (m *comparison) feed(limit time.Time) (*event, error) {
	if m.next == nil && !m.done {
		var err error
		if m.next, err = m.read(); err != nil {
			return nil, err
		}
		m.done = m.next == nil
	}
	ev := m.next
	if ev == nil || ev.Time.After(limit) {
		return nil, nil
	}
	m.next = nil
	m.observe(ev)
	return ev, nil
}

// Marks of what read decodes. No text in an event can hold them: its quotes are escaped.
const (
	markAction = `,"kind":"action"`
	markOpen   = `,"kind":"flow.open"`
	markClose  = `,"kind":"flow.close"`
	markTime   = `"time":"`
)

// read returns the next event that matters; nil at the end.
func (m *comparison) read() (*event, error) {
	for {
		rec, err := m.Log.Next()
		var damage *auditlog.DamageError
		var sealed *auditlog.SealedError
		var removed *auditlog.RemovedError
		switch {
		case err == io.EOF:
			return nil, nil
		case errors.As(err, &damage), errors.As(err, &sealed):
			m.note(fmt.Sprintf("the audit log is damaged (%v): what it held there counts as missing; `weir audit verify` says more", err))
			m.Log.Skip()
			continue
		case errors.As(err, &removed):
			m.note(fmt.Sprintf("%v: sessions that were opened then cannot be told from those that went past Weir", removed))
			continue
		case err != nil:
			return nil, err
		}
		action := bytes.Contains(rec.Payload, []byte(markAction))
		if !action && !bytes.Contains(rec.Payload, []byte(markOpen)) && !bytes.Contains(rec.Payload, []byte(markClose)) {
			continue
		}
		if action && m.before(rec.Payload) {
			continue // the period begins later
		}
		ev := new(event)
		if err := json.Unmarshal(rec.Payload, ev); err != nil {
			return nil, fmt.Errorf("event %d of the audit log: %w", rec.Seq, err)
		}
		if ev.Backend == m.Backend && ev.Flow != "" {
			return ev, nil
		}
	}
}

// before reports whether an event is too old to belong to any statement.
func (m *comparison) before(payload []byte) bool {
	_, rest, ok := bytes.Cut(payload, []byte(markTime))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, string(rest[:end]))
	// A statement may wait for the one before it: a day is more than any does.
	return err == nil && at.Before(m.out.From.Add(-m.Skew-24*time.Hour))
}

const maxNotes = 20

func (m *comparison) note(s string) {
	if len(m.out.Notes) < maxNotes {
		m.out.Notes = append(m.out.Notes, s)
	}
}

func (m *comparison) observe(ev *event) {
	switch ev.Kind {
	case auditlog.FlowOpen:
		if ev.Upstream == nil || ev.Upstream.PID == 0 {
			return
		}
		s := &session{flow: ev.Flow, pid: ev.Upstream.PID, opened: ev.Time}
		m.flows[s.flow] = s
		m.byPID[s.pid] = append(m.byPID[s.pid], s)
	case auditlog.FlowClose:
		if s := m.flows[ev.Flow]; s != nil && s.closed.IsZero() {
			s.closed = ev.Time
			m.closing = append(m.closing, s)
		}
	case auditlog.ActionEvent:
		if ev.Action != nil {
			m.action(ev)
		}
	}
}

func (m *comparison) action(ev *event) {
	a := ev.Action
	if a.Phase == auditlog.PhaseOutcome {
		p := m.byID[a.ID]
		if p == nil || ev.Result == nil {
			return
		}
		p.status = ev.Result.Status
		if s := m.flows[ev.Flow]; s != nil && ev.Time.Before(m.out.From.Add(-m.Skew)) { // over before the period
			s.pending = slices.DeleteFunc(s.pending, func(x *pending) bool { return x == p })
			m.forget(p)
		}
		return
	}
	s := m.flows[ev.Flow]
	if s == nil {
		return // it was refused before it had a session
	}
	p := &pending{id: a.ID, text: trimmed(a.Text), at: ev.Time.UnixNano(), cut: len(a.Text) >= maxText,
		call: strings.HasPrefix(a.Text, "function call of ")}
	if ev.Result != nil && ev.Result.Status == auditlog.StatusDenied {
		if len(s.denied) == maxDenied {
			s.denied = s.denied[1:]
		}
		s.denied = append(s.denied, p)
		return
	}
	s.pending = append(s.pending, p)
	m.byID[p.id] = p
	if m.waiting += len(p.text) + perPending; m.waiting > maxWaiting {
		m.note("too many actions waited for their statements at once: the oldest of a session count as not in the server's log")
		n := (len(s.pending) + 1) / 2
		m.weirOnly(s, s.pending[:n])
		s.pending = slices.Delete(s.pending, 0, n)
	}
}

// expire closes the account of sessions that ended well before now.
func (m *comparison) expire(now time.Time) {
	for len(m.closing) > 0 && m.closing[0].closed.Add(2*m.Skew).Before(now) {
		m.end(m.closing[0])
		m.closing = m.closing[1:]
	}
}

func (m *comparison) end(s *session) {
	m.weirOnly(s, s.pending)
	s.pending = nil
	delete(m.flows, s.flow)
	if list := slices.DeleteFunc(m.byPID[s.pid], func(x *session) bool { return x == s }); len(list) > 0 {
		m.byPID[s.pid] = list
	} else {
		delete(m.byPID, s.pid)
	}
}

// weirOnly counts actions of the period that the server's log does not have.
func (m *comparison) weirOnly(s *session, list []*pending) {
	for _, p := range list {
		m.forget(p)
		at := time.Unix(0, p.at).UTC()
		if at.Before(m.out.From) || at.After(m.out.To) {
			continue
		}
		w := &m.out.WeirOnly
		if w.ByStatus == nil {
			w.ByStatus = make(map[string]uint64)
		}
		status := cmp.Or(p.status, "unknown")
		w.Actions++
		w.ByStatus[status]++
		if len(w.Examples) < maxExamples {
			w.Examples = append(w.Examples, Statement{Time: at, Why: status, PID: s.pid, Flow: s.flow, Action: p.id, Text: shortened(p.text)})
		}
	}
}

// finish reads what the audit log has of the outcomes of the period and closes the
// account.
func (m *comparison) finish() error {
	for {
		ev, err := m.feed(m.out.To.Add(m.Skew))
		if err != nil {
			return err
		}
		if ev == nil {
			break
		}
	}
	for _, s := range m.flows {
		m.weirOnly(s, s.pending)
	}
	slices.SortFunc(m.out.WeirOnly.Examples, func(a, b Statement) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Action, b.Action)) })
	for _, g := range m.groups {
		m.out.ServerOnly.By = append(m.out.ServerOnly.By, *g)
	}
	slices.SortFunc(m.out.ServerOnly.By, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Statements, a.Statements), a.First.Compare(b.First), cmp.Compare(a.User, b.User), cmp.Compare(a.Application, b.Application))
	})
	return nil
}
