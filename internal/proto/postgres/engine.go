package postgres

import (
	"errors"
	"fmt"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Engine is the protocol behind the greeting. See session.Engine for how it is
// driven.
type Engine struct {
	cfg   *Config
	grant session.Grant
	db    string

	// The client's side.
	chead   header
	cstate  clientState
	cleft   int64  // bytes of the body that are still to come
	held    []byte // the body, or its head, of a message that is held
	scan    *bindScanner
	binding *portal
	batch   uint64 // grows with every Sync
	open    bool   // messages were forwarded since the last Sync: a transaction may be open
	skip    bool   // everything is dropped until Sync
	asked   asked
	// rejected is the statement's name of the Parse that is being answered.
	rejected string
	pending  *session.Question
	wait     chan struct{}
	ready    func() bool

	// The server's side.
	shead  header
	sstate serverState
	sleft  int64
	sheld  []byte

	queue      queue
	status     byte // of the last ReadyForQuery
	over       bool // End was called: what the server still says is for nobody
	copying    bool // the server takes CopyData
	statements *table[*prepared]
	portals    *table[*portal]
	settings   settings
	strings    bool     // standard_conforming_strings
	ownNames   []string // application names that the client has written down, latest last
	encoding   string
	reported   map[string]string // settings that say how values are read
	set        map[string]string // what the client has set besides
	stated     []flow.Setting    // state, made when it is asked for and kept while it holds
	statedAt   uint64            // the generation of settings that it is of
	notice     []byte            // what a client that waits is still to be told
	changed    bool              // the open transaction changed the catalogue
	doubt      *doubt            // what of the catalogue it changed

	// The running statement.
	rows, bytes int64
	shown       int64 // rows that the client was sent in this flow, masked or not
	tape        *tape // nil: the flow is not recorded
	plan        *plan
	row         rowMasking
	described   bool // its row description came
	copyOut     bool
	copier      *mask.Copy
	planned     bool
	counts      []auditlog.Mask

	masks    *maskSet // of the last decision
	ahead    func() ([]*policy.Mask, string)
	compiler maskCompiler
}

// EngineConfig is what one flow's engine starts with.
type EngineConfig struct {
	*Config
	Grant      session.Grant
	Database   string
	Defaults   Defaults
	Parameters map[string]string // that the server reported
	Status     byte
	Set        map[string]string // settings that the client began with
	// Ahead gives the masks of the moment and their revision, before a decision has
	// them; nil when nobody can.
	Ahead func() ([]*policy.Mask, string)
	cache *maskCache
	known *mask.Set
}

// NewEngine makes the engine of a flow whose upstream session is ready for a query.
func NewEngine(c EngineConfig) *Engine {
	if c.cache == nil {
		c.cache = new(maskCache)
	}
	e := &Engine{
		cfg: c.Config, grant: c.Grant, db: c.Database, status: c.Status,
		statements: newTable[*prepared](), portals: newTable[*portal](),
		settings: newSettings(parsePath(c.Defaults.SearchPath), c.Defaults.Role),
		strings:  c.Parameters["standard_conforming_strings"] != "off",
		encoding: c.Parameters["client_encoding"],
		ahead:    c.Ahead,
		compiler: maskCompiler{config: &c.Masks, cache: c.cache, known: c.known},
	}
	e.ownNames = append(e.ownNames, c.Parameters["application_name"])
	e.reported, e.set = map[string]string{}, c.Set
	for name, value := range c.Parameters {
		e.report(name, value)
	}
	if path, ok := c.Parameters["search_path"]; ok {
		e.settings.report(path)
		e.settings.defaults = e.settings.now
	}
	return e
}

// Pending implements session.Engine.
func (e *Engine) Pending() *session.Question { return e.pending }

// Idle implements session.Engine.
func (e *Engine) Idle() bool {
	return e.queue.len() == 0 && e.pending == nil && e.cstate == clientHeader && e.chead.n == 0 &&
		e.atBoundary() && e.status == 'I' && !e.open
}

// atBoundary reports whether the client's stream stands between two messages.
func (e *Engine) atBoundary() bool { return e.sstate != serverStream }

// Goodbye implements session.Engine.
func (e *Engine) Goodbye(r *session.Refusal, out *session.Output) {
	if e.atBoundary() {
		out.ToClient.Build(func(dst []byte) []byte { return appendError(dst, "FATAL", codeOf(r.Reason), r.Message, 0) })
	}
	e.End(out)
}

// End implements session.Engine. It may be called more than once.
func (e *Engine) End(out *session.Output) {
	e.over = true
	for h := e.queue.head(); h != nil; h = e.queue.head() {
		e.closeActs(h, auditlog.StatusLost, out)
		e.queue.pop()
	}
	if e.wait != nil {
		close(e.wait)
		e.wait, e.pending = nil, nil
	}
}

// fail ends the flow: the client is told where its stream permits, in words that
// hold nothing of what was sent.
func (e *Engine) fail(err error, out *session.Output) error {
	if !e.atBoundary() {
		return err
	}
	var end *session.End
	var refusal *session.Refusal
	reason, message := flow.ReasonProtocol, "weir: the connection is closed: "
	switch {
	case errors.As(err, &refusal):
		reason, message = refusal.Reason, refusal.Message
	case errors.As(err, &end):
		reason = end.Reason
		message += end.Err.Error()
	default:
		message += err.Error()
	}
	out.ToClient.Build(func(dst []byte) []byte { return appendError(dst, "FATAL", codeOf(reason), message, 0) })
	return err
}

// closeActs reports an entry's open actions as ended with a status.
func (e *Engine) closeActs(h *entry, status string, out *session.Output) {
	for a := h.current(); a != nil; a = h.current() {
		e.outcome(a, status, "", 0, out)
	}
}

// outcome reports how the running action ended.
func (e *Engine) outcome(a *act, status, code string, rows int64, out *session.Output) {
	a.open = false
	e.collectCounts()
	o := session.Outcome{Ticket: a.ticket, Status: status, Code: code, Rows: max(rows, e.rows), Bytes: e.bytes, Masks: e.counts}
	if rows >= 0 && status == auditlog.StatusOK {
		o.Rows = rows
	}
	out.Outcomes = append(out.Outcomes, o)
	e.resetStatement()
}

func (e *Engine) resetStatement() {
	e.rows, e.bytes, e.plan, e.planned, e.described, e.copyOut, e.copier, e.counts = 0, 0, nil, false, false, false, nil, nil
}

// snapshot is the session that texts are analysed under just now.
func (e *Engine) snapshot() sqlmeta.Session {
	s := e.settings.session()
	s.Database = e.db
	e.reading().apply(&s)
	return s
}

// hold makes the client wait until ready, which is asked after everything that the
// server says. The server is asked to say what it has.
func (e *Engine) hold(ready func() bool, out *session.Output) {
	if e.wait == nil {
		e.wait = make(chan struct{})
		e.pending = &session.Question{Wait: e.wait}
		if e.open {
			out.ToServer.Append(appendFrame(nil, msgFlush))
		}
	}
	// A COPY that begins meanwhile would wait for the client in its turn.
	e.ready = func() bool { return e.copying || ready() }
}

// release lets the client go on when what it waits for has come.
func (e *Engine) release(out *session.Output) error {
	if e.wait == nil || !e.ready() {
		return nil
	}
	close(e.wait)
	e.wait, e.pending, e.ready = nil, nil, nil
	var err error
	if e.cstate == clientBegin {
		err = e.begin(out)
	} else {
		err = e.message(out)
	}
	if err != nil {
		return fmt.Errorf("after waiting for the server: %w", err)
	}
	return nil
}

// settled reports that no answer is outstanding that changes what a text means,
// and that the client may pipeline more.
func (e *Engine) settled() bool {
	return !e.statements.unsettled(e.batch) && !e.portals.unsettled(e.batch) &&
		!e.reportsDue() && e.queue.waits == 0 && e.queue.copies == 0 && e.queue.len() < maxInFlight && e.queue.bytes <= maxNamedBytes
}
