package postgres

import (
	"fmt"
	"io"

	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// clientState says what the client's next byte belongs to.
type clientState byte

const (
	clientHeader  clientState = iota
	clientBegin               // the header is whole and waits for the server
	clientHold                // a body that is held before it is looked at
	clientBind                // the names of a Bind
	clientValues              // the rest of a Bind, forwarded as it comes
	clientStream              // the rest of a body, forwarded as it comes
	clientDiscard             // the rest of a body, dropped
)

// Client implements session.Engine.
func (e *Engine) Client(b []byte, out *session.Output) (int, error) {
	n := 0
	for n < len(b) && e.pending == nil {
		k, err := e.step(b[n:], out)
		n += k
		if err == io.EOF {
			return n, io.EOF
		}
		if err != nil {
			return n, e.fail(ended(err), out)
		}
	}
	return n, nil
}

// ended makes an error of one of the sides an End.
func ended(err error) error {
	switch err.(type) {
	case *session.End, *session.Refusal:
		return err
	}
	return protocolError(err)
}

// step takes some bytes and returns how many.
func (e *Engine) step(b []byte, out *session.Output) (int, error) {
	if e.cstate == clientHeader {
		k := e.chead.fill(b)
		if !e.chead.whole() {
			return k, nil
		}
		if err := checkClientHeader(e.chead.kind(), e.chead.body()); err != nil {
			return k, err
		}
		e.cleft = e.chead.body()
		return k, e.begin(out)
	}
	k := int(min(e.cleft, int64(len(b))))
	switch e.cstate {
	case clientHold:
		k = min(k, e.heldLimit()-len(e.held))
		e.held = append(e.held, b[:k]...)
		e.cleft -= int64(k)
		return k, e.heldSome(out)
	case clientBind:
		k = min(k, 2*(maxName+1)-len(e.held))
		e.held = append(e.held, b[:k]...)
		e.cleft -= int64(k)
		return k, e.bindHead(out)
	case clientValues:
		e.cleft -= int64(k)
		return k, e.bindBody(b[:k], out)
	case clientStream:
		if e.chead.kind() == msgCopyData {
			e.copiedIn(b[:k])
		}
		forward(&out.ToServer, b[:k])
	}
	if e.cleft -= int64(k); e.cleft == 0 {
		e.next()
	}
	return k, nil
}

// small ranges are copied: one range more costs the writer more than that.
const small = 512

func forward(w *session.Bytes, b []byte) {
	if len(b) < small {
		w.Append(b)
	} else {
		w.Forward(b)
	}
}

// heldLimit is how much of the current message is held before it is looked at.
func (e *Engine) heldLimit() int {
	if e.big() {
		return maxHead
	}
	return int(e.chead.body())
}

// big reports a Query or Parse that is too long to be analysed.
func (e *Engine) big() bool {
	k := e.chead.kind()
	return (k == msgQuery || k == msgParse) && e.chead.body() > maxStatement
}

// begin decides how the body of a message is taken in, once its header is whole.
func (e *Engine) begin(out *session.Output) error {
	kind := e.chead.kind()
	e.cstate = clientHold
	switch {
	case e.skip && kind != msgSync && kind != msgTerminate:
		return e.dropRest()
	case kind == msgCopyData || kind == msgCopyDone || kind == msgCopyFail:
		if e.queue.copies > 0 && !e.copying {
			e.cstate = clientBegin
			e.hold(func() bool { return e.copying || e.queue.copies == 0 || e.skip }, out)
			return nil
		}
		if !e.copying { // the server would ignore it: what is left of a failed COPY
			return e.dropRest()
		}
		if kind == msgCopyData {
			e.bytes += e.cleft
			out.ToServer.Append(e.chead.b[:])
			return e.rest(clientStream)
		}
	case e.copying && (kind == msgSync || kind == msgFlush):
		return e.dropRest() // as the server does between CopyInResponse and CopyDone
	case e.copying && kind != msgTerminate:
		return fmt.Errorf("message type %q during COPY", kind)
	case kind == msgBind:
		e.cstate = clientBind
		return nil
	}
	if kind == msgCall && e.cleft > maxCall {
		return fmt.Errorf("a function call of %d bytes is longer than weir takes (%d)", e.cleft, maxCall)
	}
	return e.heldSome(out)
}

// rest goes on with the rest of the body in a state, or with the next message.
func (e *Engine) rest(s clientState) error {
	if e.cstate = s; e.cleft == 0 {
		e.next()
	}
	return nil
}

func (e *Engine) dropRest() error { return e.rest(clientDiscard) }

// next makes room for the next message.
func (e *Engine) next() {
	e.chead.n, e.cstate, e.scan, e.binding = 0, clientHeader, nil, nil
	if cap(e.held) > keepHeld {
		e.held = nil
	}
	e.held = e.held[:0]
}

func (e *Engine) heldSome(out *session.Output) error {
	if len(e.held) < e.heldLimit() {
		return nil
	}
	return e.message(out)
}

// forwardHeld forwards the header and what is held, and goes on with the rest.
func (e *Engine) forwardHeld(out *session.Output) error {
	out.ToServer.Build(func(dst []byte) []byte { return append(append(dst, e.chead.b[:]...), e.held...) })
	return e.rest(clientStream)
}

// expect enters what the server now owes.
func (e *Engine) expect(x *entry) *entry {
	x.batch = e.batch
	e.queue.push(x)
	return x
}

// message takes a message that is held as far as it is ever held. It is called
// again when the message had to wait.
func (e *Engine) message(out *session.Output) error {
	kind := e.chead.kind()
	if e.skip && kind != msgSync && kind != msgTerminate {
		return e.dropRest()
	}
	if e.copying && kind != msgCopyDone && kind != msgCopyFail && kind != msgTerminate {
		if kind == msgSync || kind == msgFlush {
			return e.dropRest()
		}
		return fmt.Errorf("message type %q during COPY", kind) // it had to wait until the COPY began
	}
	if kind != msgBind && !e.big() && !validateClient(kind, e.held) {
		return fmt.Errorf("message type %q: %w", kind, errMalformed)
	}
	switch kind {
	case msgQuery:
		return e.query(out)
	case msgParse:
		return e.parse(out)
	case msgBind:
		return e.bind(out)
	case msgDescribe, msgClose:
		return e.named(kind, out)
	case msgExecute:
		return e.execute(out)
	case msgCall:
		return e.call(out)
	case msgSync:
		if room := func() bool { return e.queue.len() < maxInFlight }; !room() {
			e.hold(room, out)
			return nil
		}
		e.expect(&entry{kind: expectSync})
		e.batch++
		e.open, e.skip = false, false
	case msgCopyDone, msgCopyFail:
		e.copying = false
	case msgTerminate:
		err := e.forwardHeld(out)
		if err == nil {
			err = io.EOF
		}
		return err
	}
	return e.forwardHeld(out)
}

// query asks about a simple query.
func (e *Engine) query(out *session.Output) error {
	if !e.settled() {
		e.hold(e.settled, out)
		return nil
	}
	var m pgproto3.Query
	if e.big() {
		m.String = string(e.held)
	} else if err := decodeClient(msgQuery, e.held, &m); err != nil {
		return err
	}
	e.ask(asked{kind: msgQuery, text: m.String})
	return nil
}

// parse asks about a statement to be prepared.
func (e *Engine) parse(out *session.Output) error {
	if !e.settled() {
		e.hold(e.settled, out)
		return nil
	}
	var m pgproto3.Parse
	if e.big() {
		name, text, ok := splitHead(e.held)
		if !ok {
			return fmt.Errorf("message type 'P' with a name longer than %d bytes", maxName)
		}
		m.Name, m.Query = name, text
	} else if err := decodeClient(msgParse, e.held, &m); err != nil {
		return err
	}
	if len(m.Name) > maxName {
		return fmt.Errorf("message type 'P' with a name longer than %d bytes", maxName)
	}
	e.ask(asked{kind: msgParse, name: m.Name, text: m.Query})
	return nil
}

// splitHead splits the start of a Parse into the name and what there is of the text.
func splitHead(b []byte) (name, text string, ok bool) {
	for i := 0; i <= maxName && i < len(b); i++ {
		if b[i] == 0 {
			return string(b[:i]), string(b[i+1:]), true
		}
	}
	return "", "", false
}

// bindHead goes on once the names of a Bind are known.
func (e *Engine) bindHead(out *session.Output) error {
	_, _, _, ok, err := bindNames(e.held)
	if err != nil {
		return err
	}
	if ok {
		return e.message(out)
	}
	if e.cleft == 0 {
		return fmt.Errorf("message type 'B': %w", errMalformed)
	}
	return nil
}

// bind forwards the head of a Bind and enters the portal.
func (e *Engine) bind(out *session.Output) error {
	name, statement, n, _, err := bindNames(e.held)
	if err != nil {
		return err
	}
	certain := func() bool {
		_, doubt := e.statements.get(statement, e.batch)
		return !doubt && e.settled()
	}
	if !certain() {
		e.hold(certain, out)
		return nil
	}
	prep, _ := e.statements.get(statement, e.batch)
	if prep == nil && statement == "" { // only Parse makes it, so it is not there
		e.reject(codeNoStatement, "unnamed prepared statement does not exist", 0, out)
		return e.dropRest()
	}
	if prep == nil {
		prep = unseen
	}
	p := &portal{prep: prep, generation: e.settings.generation}
	change, err := e.portals.propose(name, p, e.batch)
	if err != nil {
		e.reject(codeTooMuch, "weir: "+err.Error()+" in this connection; close some", 0, out)
		return e.dropRest()
	}
	e.expect(&entry{kind: expectBind, name: name, change: change, portal: p, prep: prep, bytes: namedOverhead})
	e.open = true
	out.ToServer.Build(func(dst []byte) []byte { return append(append(dst, e.chead.b[:]...), e.held...) })
	e.cstate, e.binding = clientValues, p
	e.scan = newBindScanner(e.cleft + int64(len(e.held)-n))
	e.scan.rec.hide = e.compiler.hide
	return e.bound(e.scan.feed(e.held[n:]), p)
}

func (e *Engine) bindBody(b []byte, out *session.Output) error {
	forward(&out.ToServer, b)
	return e.bound(e.scan.feed(b), e.binding)
}

// bound completes the portal when its Bind is whole.
func (e *Engine) bound(err error, p *portal) error {
	if err != nil || e.cleft > 0 {
		return err
	}
	if !e.scan.whole() {
		return fmt.Errorf("message type 'B': %w", errMalformed)
	}
	p.params, p.formats, p.digest = e.scan.rec.done(), e.scan.results, e.scan.sum.Sum(nil)
	p.kinds, p.hidden = e.scan.rec.kinds, e.scan.rec.hidden
	p.bytes = e.chead.body()
	e.next()
	return nil
}

// named forwards Describe and Close.
func (e *Engine) named(kind byte, out *session.Output) error {
	ofStatement, name := e.held[0] == 'S', ""
	if kind == msgDescribe {
		var m pgproto3.Describe
		if err := decodeClient(kind, e.held, &m); err != nil {
			return err
		}
		name = m.Name
	} else {
		var m pgproto3.Close
		if err := decodeClient(kind, e.held, &m); err != nil {
			return err
		}
		name = m.Name
	}
	if len(name) > maxName {
		return fmt.Errorf("message type %q with a name longer than %d bytes", kind, maxName)
	}
	certain := func() bool {
		_, doubt := e.portals.get(name, e.batch)
		return (ofStatement || !doubt) && e.settled()
	}
	if !certain() {
		e.hold(certain, out)
		return nil
	}
	x := &entry{name: name, statement: ofStatement}
	switch {
	case kind == msgClose:
		x.kind = expectClose
		if ofStatement {
			x.change, _ = e.statements.propose(name, nil, e.batch)
		} else {
			x.change, _ = e.portals.propose(name, nil, e.batch)
		}
	default:
		x.kind = expectDescribe
		if !ofStatement {
			if x.portal, _ = e.portals.get(name, e.batch); x.portal != nil {
				x.portal.describing = e.batch + 1
			}
		} else if p, doubt := e.statements.get(name, e.batch); !doubt {
			if x.prep = p; p == nil && name == "" {
				e.reject(codeNoStatement, "unnamed prepared statement does not exist", 0, out)
				return e.dropRest()
			}
		}
	}
	e.expect(x)
	e.open = true
	return e.forwardHeld(out)
}

// execute asks about running a portal.
func (e *Engine) execute(out *session.Output) error {
	var m pgproto3.Execute
	if err := decodeClient(msgExecute, e.held, &m); err != nil {
		return err
	}
	if len(m.Portal) > maxName {
		return fmt.Errorf("message type 'E' with a name longer than %d bytes", maxName)
	}
	certain := func() bool {
		_, doubt := e.portals.get(m.Portal, e.batch)
		return !doubt && e.settled()
	}
	if !certain() {
		e.hold(certain, out)
		return nil
	}
	p, _ := e.portals.get(m.Portal, e.batch)
	if p == nil {
		p = &portal{prep: unseen}
	}
	e.ask(asked{kind: msgExecute, name: m.Portal, portal: p})
	return nil
}

// call asks about a function call.
func (e *Engine) call(out *session.Output) error {
	if !e.settled() {
		e.hold(e.settled, out)
		return nil
	}
	c, ok := scanCall(e.held, e.compiler.hide)
	if !ok {
		return fmt.Errorf("function call: %w", errMalformed)
	}
	e.ask(asked{kind: msgCall, call: c})
	return nil
}

// cancelled reports actions that were allowed and never forwarded.
func cancelled(tickets []session.Ticket, out *session.Output) {
	for _, t := range tickets {
		out.Outcomes = append(out.Outcomes, session.Outcome{Ticket: t, Status: auditlog.StatusCancelled})
	}
}
