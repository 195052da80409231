package postgres

import (
	"errors"
	"slices"

	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// asked is the message that waits for an answer.
type asked struct {
	kind   byte
	name   string // of the statement or portal
	text   string
	portal *portal
	call   call
}

// goesOn reports an Execute that continues with the rows of one before it.
func (a *asked) goesOn() bool { return a.portal != nil && a.portal.ran }

// unseen stands for a prepared statement that weir did not see being made.
var unseen = &prepared{}

func (e *Engine) ask(a asked) {
	e.asked = a
	q := &session.Question{Mode: session.Run}
	if a.kind == msgParse {
		q.Mode = session.Check
	}
	q.Resolve = e.resolver(a)
	q.Describe = describe
	q.Preview = preview
	e.pending = q
}

// Answer implements session.Engine.
func (e *Engine) Answer(a *session.Answered, out *session.Output) error {
	if e.pending == nil {
		return errors.New("postgres: an answer without a question")
	}
	q := e.asked
	e.rejected = q.name
	e.pending, e.asked, e.notice = nil, asked{}, nil
	r, _ := a.Extra.(*resolved)
	if r == nil {
		r = &resolved{}
	}
	if err := e.answer(q, a, r, out); err != nil {
		return e.fail(ended(err), out)
	}
	return nil
}

func (e *Engine) answer(q asked, a *session.Answered, r *resolved, out *session.Output) error {
	d := a.Decision
	if e.skip { // the server has refused something before it and skips this
		cancelled(d.Tickets, out)
		return e.dropRest()
	}
	if !d.Allowed() {
		return e.deny(d.Refusal, r, out)
	}
	if r.refuse != "" {
		for _, t := range d.Tickets {
			out.Outcomes = append(out.Outcomes, session.Outcome{Ticket: t, Status: auditlog.StatusDenied, Code: codeParameter})
		}
		e.reject(codeParameter, r.refuse, 0, out)
		return e.dropRest()
	}
	masks, err := e.compiler.compile(d.Masks, d.Revision, r.catalog)
	if err != nil {
		return &session.End{Reason: "internal_error", Err: err}
	}
	e.masks = masks
	for i, st := range r.stmts {
		why, spends := masks.obliges(st)
		if why == "" && len(spends) > 0 && !q.goesOn() && (i >= len(a.Actions) || !slices.Equal(spends, a.Actions[i].Spends)) {
			why = "the policy's masks have just changed; try again"
		}
		if why != "" { // the policy has changed since it was asked
			for _, t := range d.Tickets {
				out.Outcomes = append(out.Outcomes, session.Outcome{Ticket: t, Status: auditlog.StatusDenied, Code: codeDenied})
			}
			e.reject(codeDenied, "weir: "+why, 0, out)
			return e.dropRest()
		}
	}
	x := &entry{masks: masks.under(r.doubt), loose: r.loose, bytes: int64(len(q.text)) + namedOverhead}
	for i, t := range d.Tickets {
		x.acts = append(x.acts, act{ticket: t, open: true, stmt: r.statement(i), reading: r.reading})
	}
	switch q.kind {
	case msgQuery:
		e.forwardQuery(x, r)
	case msgParse:
		if err := e.forwardParse(x, q, r); err != nil {
			e.reject(codeTooMuch, "weir: "+err.Error()+" in this connection; close some", 0, out)
			return e.dropRest()
		}
	case msgExecute:
		e.forwardExecute(x, q, r, out)
	case msgCall:
		x.kind = expectCall
		x.matters, x.builtIn, x.format = true, q.call.function < firstUserOID, q.call.result
		e.open = false
		e.expect(x)
	}
	return e.forwardHeld(out)
}

func (e *Engine) forwardQuery(x *entry, r *resolved) {
	x.kind = expectQuery
	e.consider(x, r.stmts)
	e.dropUnnamed(x)
	e.open = false
	e.expect(x)
}

// dropUnnamed enters that a simple query ends the unnamed statement: the server
// drops it before it parses. (To take a name away is never refused.) The unnamed
// portal may stay, if the query is empty or does not parse.
func (e *Engine) dropUnnamed(x *entry) {
	x.change, _ = e.statements.propose("", nil, e.batch)
}

func (e *Engine) forwardParse(x *entry, q asked, r *resolved) error {
	p := &prepared{text: q.text, bytes: e.chead.body(), analysis: r.analysis(), reading: r.reading}
	if !e.big() {
		p.types = parsedTypes(e.held)
	}
	if e.big() {
		p.text, p.head = "", q.text
	}
	var err error
	if x.change, err = e.statements.propose(q.name, p, e.batch); err != nil {
		return err
	}
	x.kind, x.name, x.prep = expectParse, q.name, p
	e.open = true
	e.expect(x)
	return nil
}

func (e *Engine) forwardExecute(x *entry, q asked, r *resolved, out *session.Output) {
	p := q.portal
	p.ran = true
	if p.prep != unseen {
		p.prep.analysis = r.analysis()
	}
	if x.masks.any() && !p.described && p.describing != e.batch+1 {
		p.describing = e.batch + 1
		e.expect(&entry{kind: expectDescribe, hidden: true, portal: p, name: q.name})
		out.ToServer.Build(func(dst []byte) []byte { return appendDescribePortal(dst, q.name) })
	}
	x.kind, x.portal, x.name, x.prep = expectExecute, p, q.name, p.prep
	e.consider(x, r.stmts)
	e.open = true
	e.expect(x)
}

// consider finds out what of an entry's statements concerns those that follow.
func (e *Engine) consider(x *entry, stmts []*sqlmeta.Statement) {
	x.matters, x.maybeCopy = x.loose, x.loose
	for _, s := range stmts {
		x.matters = x.matters || matters(s, e.settings.dirty())
		x.maybeCopy = x.maybeCopy || (s.Copy != nil && s.Copy.In && !s.Copy.Program && !s.Copy.File)
	}
}

// deny answers a refused message in the server's place.
func (e *Engine) deny(r *session.Refusal, x *resolved, out *session.Output) error {
	if r.Fatal {
		return r
	}
	switch {
	case r.Cancelled:
		e.reject(codeCancelled, r.Message, 0, out)
	case x.refuse != "" && len(x.stmts) > 0 && x.stmts[0].Problem == "":
		e.reject(codeParameter, x.refuse, 0, out)
	case x.syntax != "":
		e.reject(codeSyntax, "weir: "+x.syntax, x.position, out)
	case x.problem != "":
		e.reject(codeDenied, r.Message+" (weir cannot read it: "+x.problem+")", 0, out)
	default:
		e.reject(codeDenied, r.Message, 0, out)
	}
	return e.dropRest()
}

// reject answers the current message with an error of weir's. Where a transaction
// may be open it has to fail as with an error of the server: a text that the server
// must refuse goes in place of the message, and its error is exchanged.
func (e *Engine) reject(code, message string, position int, out *session.Output) {
	refusal := appendError(nil, "ERROR", code, message, position)
	kind := e.chead.kind()
	simple := kind == msgQuery || kind == msgCall
	if !simple {
		e.skip = true
	}
	// Like a message of the client's that fails, and no other, it drops the unnamed
	// statement.
	name := "weir"
	if kind == msgParse {
		name = e.rejected
	} else if simple {
		name = ""
	}
	if e.queue.len() == 0 && e.status == 'I' && !e.open {
		if name == "" {
			e.statements.confirm("", nil, 0)
		}
		out.ToClient.Append(refusal)
		if simple {
			out.ToClient.Append(appendReady(nil, e.status))
		}
		return
	}
	x := &entry{kind: expectParse, refusal: refusal, name: name}
	if simple {
		x.kind = expectQuery
		e.open = false
		e.dropUnnamed(x)
		out.ToServer.Build(func(dst []byte) []byte { return appendQuery(dst, refusedText) })
	} else {
		e.open = true
		out.ToServer.Build(func(dst []byte) []byte { return appendParse(dst, name, refusedText) })
	}
	e.expect(x)
}
