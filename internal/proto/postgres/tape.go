package postgres

import (
	"encoding/binary"
	"slices"

	"github.com/weirproxy/weir/internal/session"
)

// maxKept is how much of a message, or of what stands behind a mask, goes into a
// recording, bytes; the rest is counted.
const maxKept = 256 << 10

// tape follows what the client is sent, message by message as it is sent, and
// collects what is not in there: what the client copies in, and originals.
type tape struct {
	originals bool
	pending   []session.Entry // own their bytes

	skip int64 // bytes of the message that was under way when the recording began
	head header
	left int64  // of a message's body
	body []byte // what is kept of it
	rows int64
}

// Recorded implements session.RecordingHandler.
func (h *Handler) Recorded() bool { return true }

// StartRecording implements session.RecordedEngine.
func (e *Engine) StartRecording(originals bool) {
	t := &tape{originals: originals, rows: e.shown}
	switch {
	case e.sstate == serverStream:
		t.skip = e.sleft
	case e.sstate == serverHold && e.shead.kind() == srvDataRow:
		t.rows-- // is counted, and will be sent
	}
	e.tape = t
}

// StopRecording implements session.RecordedEngine.
func (e *Engine) StopRecording() { e.tape = nil }

// Record implements session.RecordedEngine.
func (e *Engine) Record(out *session.Output, keep func(*session.Entry) error) error {
	t := e.tape
	if t == nil {
		return nil
	}
	for i := range t.pending {
		if err := keep(&t.pending[i]); err != nil {
			return err
		}
	}
	clear(t.pending)
	t.pending = t.pending[:0]
	for _, b := range out.ToClient.Ranges() {
		if err := t.walk(b, keep); err != nil {
			return err
		}
	}
	return nil
}

// walk takes a piece of the stream to the client.
func (t *tape) walk(b []byte, keep func(*session.Entry) error) error {
	for len(b) > 0 {
		if t.skip > 0 {
			k := min(t.skip, int64(len(b)))
			t.skip -= k
			b = b[k:]
			continue
		}
		if !t.head.whole() {
			b = b[t.head.fill(b):]
			if !t.head.whole() {
				return nil
			}
			t.left = t.head.body()
			t.body = t.body[:0]
		}
		k := min(t.left, int64(len(b)))
		part := b[:k]
		t.left -= k
		b = b[k:]
		kept := tells(t.head.kind())
		if t.left > 0 || len(t.body) > 0 {
			if room := maxKept - len(t.body); kept && room > 0 {
				t.body = append(t.body, part[:min(room, len(part))]...)
			}
			part = t.body
		}
		if t.left > 0 {
			continue
		}
		cut := t.head.body() - int64(len(part))
		kind := t.head.kind()
		t.head.n = 0
		if kept {
			if err := t.message(kind, part, cut, keep); err != nil {
				return err
			}
		}
		if cap(t.body) > keepHeld {
			t.body = nil
		}
	}
	return nil
}

// tells reports the messages that a recording has something of.
func tells(kind byte) bool {
	switch kind {
	case srvRowDescription, srvDataRow, msgCopyData, srvError, srvNotice, srvNotification, srvCallResponse, srvCommandComplete:
		return true
	}
	return false
}

// message takes a message of which the last cut bytes are not there. They were
// looked at before they were sent; what does not decode is left out here.
func (t *tape) message(kind byte, body []byte, cut int64, keep func(*session.Entry) error) error {
	e := session.Entry{}
	switch kind {
	case srvRowDescription:
		columns, err := rowColumns(body)
		if err != nil {
			return nil
		}
		e = columnsEntry(columns)
	case srvDataRow:
		t.rows++
		e.Kind, e.N, e.Values = session.EntryRow, t.rows, rowValues(body)
	case msgCopyData:
		e.Kind, e.Data = session.EntryCopyOut, session.Value{Bytes: body, Cut: cut}
	case srvCallResponse:
		e.Kind, e.Values = session.EntryResult, lengthValues(body, 1)
	case srvNotification:
		e.Kind, e.Code = session.EntryNotice, "NOTIFY"
		if len(body) > 4 && cut == 0 {
			channel, payload := twoStrings(body[4:])
			e.Text = channel + ": " + payload
		}
	case srvCommandComplete:
		e.Kind, e.Text = session.EntryDone, string(body[:max(len(body)-1, 0)])
	default:
		if cut > 0 || len(body) == 0 || body[len(body)-1] != 0 {
			return nil // the engine cuts them shorter itself
		}
		e.Kind = session.EntryNotice
		if kind == srvError {
			e.Kind = session.EntryError
		}
		e.Code, e.Text = messageText(body)
	}
	return keep(&e)
}

// messageText is the SQLSTATE and the text of an error or a notice.
func messageText(body []byte) (code, text string) {
	detail := ""
	fieldsOf(body, func(kind byte, v []byte) {
		switch kind {
		case 'C':
			code = string(v)
		case 'M':
			text = string(v)
		case 'D':
			detail = "\nDETAIL: " + string(v)
		case 'H':
			detail += "\nHINT: " + string(v)
		}
	})
	return code, text + detail
}

func columnsEntry(columns []Column) session.Entry {
	e := session.Entry{Kind: session.EntryColumns, Values: make([]session.Value, len(columns))}
	for i := range columns {
		e.Values[i].Bytes = []byte(columns[i].Name)
	}
	return e
}

// rowValues are the values of a DataRow of which the end may be missing.
func rowValues(body []byte) []session.Value {
	if len(body) < 2 {
		return nil
	}
	return lengthValues(body[2:], int(binary.BigEndian.Uint16(body)))
}

// lengthValues reads n values, each behind its length; those that are not there are
// left out.
func lengthValues(b []byte, n int) []session.Value {
	list := make([]session.Value, 0, min(n, 1664))
	for ; n > 0 && len(b) >= 4; n-- {
		size := int64(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if size < 0 {
			list = append(list, session.Value{Null: true})
			continue
		}
		k := min(size, int64(len(b)))
		list = append(list, session.Value{Bytes: b[:k], Cut: size - k})
		b = b[k:]
	}
	return list
}

// own is a copy of what is kept of a value.
func own(b []byte) session.Value {
	k := min(len(b), maxKept)
	return session.Value{Bytes: append([]byte{}, b[:k]...), Cut: int64(len(b) - k)}
}

// add collects an entry whose bytes are its own.
func (t *tape) add(e session.Entry) { t.pending = append(t.pending, e) }

// wantsOriginals reports whether what stands behind masks is to be kept.
func (e *Engine) wantsOriginals() bool { return e.tape != nil && e.tape.originals }

// original keeps a value of the row that is being masked.
func (e *Engine) original(column int, value []byte, null bool) {
	v := own(value)
	v.Null = null
	e.tape.add(session.Entry{Kind: session.EntryOriginal, N: e.shown, Column: column, Data: v})
}

// originalMessage keeps what stands behind something else than a row's value.
func (e *Engine) originalMessage(b []byte) {
	e.tape.add(session.Entry{Kind: session.EntryOriginal, Column: -1, Data: own(b)})
}

// copiedIn keeps what the client copies in.
func (e *Engine) copiedIn(b []byte) {
	if e.tape == nil {
		return
	}
	for part := range slices.Chunk(b, maxKept) {
		e.tape.add(session.Entry{Kind: session.EntryCopyIn, Data: own(part)})
	}
}
