package postgres

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// serverState says what the server's next byte belongs to.
type serverState byte

const (
	serverHeader serverState = iota
	serverHold               // a message that is held until it is whole
	serverCut                // the rest of a message of which enough is held
	serverStream             // the rest of a message that is forwarded as it comes
)

// Server implements session.Engine.
func (e *Engine) Server(b []byte, out *session.Output) error {
	if e.over {
		return nil
	}
	for len(b) > 0 {
		n, err := e.serverStep(b, out)
		if err != nil {
			return e.fail(ended(err), out)
		}
		b = b[n:]
	}
	if err := e.release(out); err != nil {
		return e.fail(ended(err), out)
	}
	e.sayHeld(out)
	return nil
}

// serverStep takes some bytes and returns how many.
func (e *Engine) serverStep(b []byte, out *session.Output) (int, error) {
	switch e.sstate {
	case serverHeader:
		return e.serverBegin(b, out)
	case serverHold:
		limit := int64(headerLen + maxNotice)
		if !cuts(e.shead.kind()) {
			limit = int64(len(e.sheld)) + e.sleft
		}
		k := min(int64(len(b)), e.sleft, limit-int64(len(e.sheld)))
		e.sheld = append(e.sheld, b[:k]...)
		e.sleft -= k
		if e.sleft > 0 && int64(len(e.sheld)) < limit {
			return int(k), nil
		}
		err := e.serverMessage(e.shead.kind(), e.sheld, false, out)
		e.sstate = serverCut
		if e.sleft == 0 {
			e.serverNext()
		}
		return int(k), err
	}
	k := int(min(int64(len(b)), e.sleft))
	if e.sstate == serverStream {
		out.ToClient.Forward(b[:k])
	}
	if e.sleft -= int64(k); e.sleft == 0 {
		e.serverNext()
	}
	return k, nil
}

func (e *Engine) serverNext() {
	e.shead.n, e.sstate = 0, serverHeader
	if cap(e.sheld) > keepHeld {
		e.sheld = nil
	}
	e.sheld = e.sheld[:0]
}

// cuts reports the types of which only the first maxNotice bytes are passed on.
func cuts(kind byte) bool { return kind == srvError || kind == srvNotice }

// serverBegin takes the start of a message, or all of it when it is there.
func (e *Engine) serverBegin(b []byte, out *session.Output) (int, error) {
	fresh := e.shead.n == 0
	k := e.shead.fill(b)
	if !e.shead.whole() {
		return k, nil
	}
	kind, body := e.shead.kind(), e.shead.body()
	limit := serverLimit(kind)
	if limit == 0 || body < 0 || body+4 > maxLarge || (limit > 0 && body > limit) {
		return k, fmt.Errorf("the server sent message type %q of %d bytes, which it may not send here", kind, body)
	}
	pass, err := e.streams(kind, body)
	if err != nil {
		return k, err
	}
	if pass {
		if fresh {
			k += int(min(int64(len(b)-k), body))
			out.ToClient.Forward(b[:k])
			e.sleft = body - int64(k-headerLen)
		} else {
			out.ToClient.Append(e.shead.b[:])
			e.sleft = body
		}
		if e.sstate = serverStream; e.sleft == 0 {
			e.serverNext()
		}
		return k, nil
	}
	if fresh && body <= int64(len(b)-k) && !(cuts(kind) && body > maxNotice) {
		k += int(body)
		e.shead.n = 0
		return k, e.serverMessage(kind, b[:k], true, out)
	}
	e.sheld = append(e.sheld[:0], e.shead.b[:]...)
	if body == 0 {
		err := e.serverMessage(kind, e.sheld, false, out)
		e.serverNext()
		return k, err
	}
	e.sstate, e.sleft = serverHold, body
	return k, nil
}

// streams says whether a message is forwarded as it comes. It counts results.
func (e *Engine) streams(kind byte, body int64) (bool, error) {
	h := e.queue.head()
	var look bool
	switch {
	case kind == srvDataRow:
		if h == nil || h.refusal != nil || (h.kind != expectQuery && h.kind != expectExecute) || h.current() == nil || e.copyOut || e.copying {
			return false, unexpected(kind)
		}
		if h.kind == expectQuery && !e.described {
			return false, fmt.Errorf("the server sent a row before its description")
		}
		if err := e.planRows(h); err != nil {
			return false, err
		}
		look = e.plan != nil
		e.rows++
		e.shown++
	case kind == msgCopyData:
		if !e.copyOut {
			return false, unexpected(kind)
		}
		look = e.copier != nil
		e.rows++
	case kind == srvCallResponse:
		if h == nil || h.kind != expectCall || h.current() == nil || h.answered {
			return false, unexpected(kind)
		}
		h.answered = true
		look = h.masks.any()
	default:
		return false, nil
	}
	if look && body > maxRow {
		return false, fmt.Errorf("a row of %d bytes is longer than weir looks into for masking (%d)", body, maxRow)
	}
	if !look {
		e.bytes += body
	}
	return !look, nil
}

func unexpected(kind byte) error {
	return fmt.Errorf("the server sent message type %q, which it may not send here", kind)
}

// emit forwards a whole message; held ones are copied, since their buffer is reused.
func (e *Engine) emit(frame []byte, inPlace bool, out *session.Output) {
	if inPlace {
		out.ToClient.Forward(frame)
	} else {
		out.ToClient.Append(frame)
	}
}

// serverMessage takes a whole message, header and all. The set of types that are
// accepted follows from the head of the queue.
func (e *Engine) serverMessage(kind byte, frame []byte, inPlace bool, out *session.Output) error {
	body := frame[headerLen:]
	switch kind {
	case srvDataRow:
		return e.maskRow(frame, inPlace, out)
	case msgCopyData:
		return e.maskCopy(frame, inPlace, out)
	case srvCallResponse:
		return e.maskCall(frame, inPlace, out)
	case srvError, srvNotice:
		if cut, ok := wholeFields(kind, frame); ok {
			frame, body, inPlace = cut, cut[headerLen:], false
		}
	}
	if !validateServer(kind, body) {
		return fmt.Errorf("message type %q of the server: %w", kind, errMalformed)
	}
	switch kind {
	case srvNotice:
		return e.showError(e.queue.head(), frame, inPlace, out)
	case srvNotification:
		return e.notification(frame, inPlace, out)
	case srvParameterStatus:
		return e.parameter(frame, inPlace, out)
	case srvError:
		return e.serverError(frame, inPlace, out)
	}
	h := e.queue.head()
	if h == nil || h.refusal != nil && kind != srvReady {
		return unexpected(kind)
	}
	show := !h.hidden
	var err error
	switch {
	case kind == srvReady:
		return e.readyForQuery(h, frame, inPlace, out)
	case kind == srvParseComplete && h.kind == expectParse:
		e.statements.confirm(h.name, h.prep, h.change)
		e.queue.pop()
	case kind == srvBindComplete && h.kind == expectBind:
		e.portals.confirm(h.name, h.portal, h.change)
		e.queue.pop()
	case kind == srvCloseComplete && h.kind == expectClose:
		if h.statement {
			e.statements.confirm(h.name, nil, h.change)
		} else {
			e.portals.confirm(h.name, nil, h.change)
		}
		e.queue.pop()
	case kind == srvParameters && h.kind == expectDescribe && h.statement && !h.answered:
		h.answered = true
	case (kind == srvRowDescription || kind == srvNoData) && h.kind == expectDescribe && h.statement == h.answered:
		if h.portal != nil {
			h.portal.described = true
			if kind == srvRowDescription {
				h.portal.columns, err = rowColumns(body)
				if h.hidden && e.tape != nil {
					e.tape.add(columnsEntry(h.portal.columns))
				}
			}
		}
		e.queue.pop()
	case kind == srvRowDescription && h.kind == expectQuery && h.current() != nil && !e.copying && !e.copyOut:
		err = e.describeRows(h, body)
	case kind == srvCommandComplete && results(h):
		err = e.complete(h, body, out)
	case kind == srvEmptyQuery && results(h):
		e.outcome(h.current(), auditlog.StatusOK, "", 0, out)
		e.executed(h)
	case kind == srvSuspended && h.kind == expectExecute && h.current() != nil:
		e.outcome(h.current(), auditlog.StatusOK, "", e.rows, out)
		e.executed(h)
	case kind == srvCopyIn && results(h):
		err = e.beginCopyIn(h)
	case kind == srvCopyOut && results(h) && !e.copyOut:
		err = e.beginCopyOut(h, body)
	case kind == msgCopyDone && e.copyOut:
		e.copyOut = false
		err = e.endCopyOut(out)
	default:
		err = unexpected(kind)
	}
	if err == nil && show {
		e.emit(frame, inPlace, out)
	}
	return err
}

// results reports whether an entry has a statement running.
func results(h *entry) bool {
	return (h.kind == expectQuery || h.kind == expectExecute) && h.current() != nil
}

// executed ends an Execute whose statement is done.
func (e *Engine) executed(h *entry) {
	if h.kind == expectExecute {
		e.queue.pop()
	}
}

// complete takes CommandComplete.
func (e *Engine) complete(h *entry, body []byte, out *session.Output) error {
	if e.copyOut {
		return unexpected(srvCommandComplete)
	}
	tag := string(body[:len(body)-1])
	rows, counted := tagRows(tag)
	if !counted {
		rows = e.rows
	}
	e.copying = false
	a := h.current()
	if h.loose && h.kind == expectQuery {
		a.rows += rows // ends with ReadyForQuery: nobody knows how many there are
		e.newResult()
		return nil
	}
	e.effects(a, tag)
	e.outcome(a, auditlog.StatusOK, "", rows, out)
	e.executed(h)
	return nil
}

// tagRows is the number of rows in a command tag: the last word, for the commands
// that have one (PostgreSQL manual, 55.7, CommandComplete).
func tagRows(tag string) (int64, bool) {
	i := len(tag)
	for i > 0 && tag[i-1] >= '0' && tag[i-1] <= '9' {
		i--
	}
	if i == len(tag) || i == 0 || tag[i-1] != ' ' || len(tag)-i > 18 {
		return 0, false
	}
	var n int64
	for _, c := range tag[i:] {
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// readyForQuery takes the end of a simple query, a function call or a batch.
func (e *Engine) readyForQuery(h *entry, frame []byte, inPlace bool, out *session.Output) error {
	switch {
	case h.refusal != nil && (h.kind != expectQuery || !h.err):
		return unexpected(srvReady)
	case h.kind == expectQuery:
		if h.loose {
			e.looseEnd(h, out)
		}
		if h.current() != nil { // the server ended it without a word about the rest
			e.closeActs(h, auditlog.StatusCancelled, out)
		}
		e.statements.confirm("", nil, h.change)
	case h.kind == expectCall:
		if a := h.current(); a != nil {
			if !h.answered {
				return unexpected(srvReady)
			}
			e.effects(a, "")
			e.outcome(a, auditlog.StatusOK, "", 1, out)
		}
	case h.kind != expectSync:
		return unexpected(srvReady)
	}
	if e.copying || e.copyOut {
		return unexpected(srvReady)
	}
	e.status = frame[headerLen]
	e.settings.ready(e.status)
	if e.status == 'I' {
		e.portals.retain(func(p *portal) bool { return p.hold })
		if e.changed {
			e.changed, e.doubt = false, nil
			e.settings.generation++
			e.cfg.Invalidate(e.grant)
		}
	}
	e.queue.pop()
	e.resetStatement()
	e.emit(frame, inPlace, out)
	return nil
}

// looseEnd ends an action that stands for statements nobody could read: whatever
// they did to the session is unknown.
func (e *Engine) looseEnd(h *entry, out *session.Output) {
	a := h.current()
	if a == nil {
		return
	}
	e.effects(a, "")
	e.outcome(a, auditlog.StatusOK, "", a.rows, out)
}

// serverError takes ErrorResponse.
func (e *Engine) serverError(frame []byte, inPlace bool, out *session.Output) error {
	h := e.queue.head()
	code, fatal := errorCode(frame[headerLen:])
	if h == nil || fatal {
		if h == nil && !fatal {
			return unexpected(srvError)
		}
		err := e.showError(h, frame, inPlace, out)
		if a := h.current(); a != nil {
			e.outcome(a, auditlog.StatusError, code, 0, out)
		}
		return err
	}
	e.copying, e.copyOut = false, false
	e.settings.failed = true
	h.err = true
	if h.refusal != nil {
		out.ToClient.Append(h.refusal)
	} else if err := e.showError(h, frame, inPlace, out); err != nil {
		return err
	}
	if a := h.current(); a != nil {
		status := auditlog.StatusError
		if code == codeCancelled {
			status = auditlog.StatusCancelled
		}
		if h.loose {
			e.effects(a, "")
		}
		e.outcome(a, status, code, 0, out)
		e.closeActs(h, auditlog.StatusCancelled, out)
	}
	switch h.kind {
	case expectQuery, expectCall, expectSync:
		return nil // ReadyForQuery follows
	case expectParse:
		if h.name == "" { // the server drops it before it reads the new one
			e.statements.confirm("", nil, h.change)
		}
	}
	e.failBatch(h.batch, out)
	return nil
}

// failBatch drops what the server skips after an error: all up to the next Sync.
func (e *Engine) failBatch(batch uint64, out *session.Output) {
	e.statements.revert(batch)
	e.portals.revert(batch)
	for h := e.queue.head(); h != nil; h = e.queue.head() {
		if h.kind == expectSync {
			return
		}
		if h.kind == expectDescribe && h.portal != nil && h.portal.describing == h.batch+1 {
			h.portal.describing = 0
		}
		e.closeActs(h, auditlog.StatusCancelled, out)
		e.queue.pop()
	}
	e.skip = true // Sync has not been sent yet
}

// beginCopyIn takes CopyInResponse: the client's turn. Syncs that were sent along
// with the command are read by the server as part of the COPY and never answered.
func (e *Engine) beginCopyIn(h *entry) error {
	if e.copying || e.copyOut {
		return unexpected(srvCopyIn)
	}
	behind := e.queue.behind()
	for _, x := range behind {
		if x.kind != expectSync {
			return fmt.Errorf("a COPY that other messages were sent after")
		}
	}
	if len(behind) > 0 {
		e.queue.dropBehind(len(behind))
		e.open = h.kind == expectExecute
	}
	if !h.maybeCopy {
		h.maybeCopy = true
		e.queue.copies++
	}
	e.copying = true
	return nil
}

// parameter takes ParameterStatus.
func (e *Engine) parameter(frame []byte, inPlace bool, out *session.Output) error {
	name, value := twoStrings(frame[headerLen:])
	e.report(name, value)
	switch name {
	case "standard_conforming_strings":
		e.strings = value != "off"
		e.settings.generation++
	case "client_encoding":
		if !safeEncoding(value) {
			return fmt.Errorf("client_encoding became %q, in which statements cannot be read safely", value)
		}
		e.encoding = value
		e.settings.generation++
	case "search_path":
		e.settings.report(value)
	}
	if !clientSettings[name] && !(name == "application_name" && slices.Contains(e.ownNames, value)) {
		if shown := e.shownSetting(value); shown != value {
			m := pgproto3.ParameterStatus{Name: name, Value: shown}
			var err error
			out.ToClient.Build(func(dst []byte) []byte {
				var b []byte
				if b, err = m.Encode(dst); err != nil {
					return dst
				}
				return b
			})
			return err
		}
	}
	e.emit(frame, inPlace, out)
	return nil
}

// clientSettings are those that a client needs as they are. The server takes only
// values that make sense for them, so they carry no data.
var clientSettings = map[string]bool{
	"client_encoding": true, "server_encoding": true, "server_version": true, "standard_conforming_strings": true,
	"DateStyle": true, "IntervalStyle": true, "TimeZone": true, "integer_datetimes": true, "is_superuser": true,
	"session_authorization": true, "in_hot_standby": true, "default_transaction_read_only": true, "scram_iterations": true,
}

// twoStrings splits a validated body of two NUL-terminated strings.
func twoStrings(b []byte) (string, string) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), string(b[i+1 : len(b)-1])
		}
	}
	return "", ""
}

// fieldsOf calls f for every field of a validated error or notice.
func fieldsOf(body []byte, f func(kind byte, value []byte)) {
	for len(body) > 1 {
		kind := body[0]
		i := 1
		for body[i] != 0 {
			i++
		}
		f(kind, body[1:i])
		body = body[i+1:]
	}
}

func errorCode(body []byte) (code string, fatal bool) {
	severity := ""
	fieldsOf(body, func(kind byte, v []byte) {
		switch kind {
		case 'C':
			code = string(v)
		case 'S':
			if severity == "" {
				severity = string(v)
			}
		case 'V':
			severity = string(v)
		}
	})
	if len(code) > 5 {
		code = code[:5]
	}
	return code, severity == "FATAL" || severity == "PANIC"
}

// cutMark ends a field that was cut.
const cutMark = " [cut by weir]"

// wholeFields rebuilds an error or notice of which only the start is there: the
// field that is cut ends with cutMark.
func wholeFields(kind byte, frame []byte) ([]byte, bool) {
	if int64(len(frame)) == int64(binary.BigEndian.Uint32(frame[1:]))+1 {
		return nil, false
	}
	out, mark := beginFrame(nil, kind)
	body := frame[headerLen:]
	for len(body) > 0 && body[0] != 0 {
		i := 1
		for i < len(body) && body[i] != 0 {
			i++
		}
		if i == len(body) {
			out = append(out, body...)
			out = append(out, cutMark...)
			out = append(out, 0)
			break
		}
		out = append(out, body[:i+1]...)
		body = body[i+1:]
	}
	return endFrame(append(out, 0), mark), true
}
