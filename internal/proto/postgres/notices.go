package postgres

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Errors and notices quote data: DETAIL shows rows, CONTEXT shows values, a cast's
// message shows what did not fit. They go through the detectors, and where the
// running statement has to do with masked columns Weir's own words stand for the
// server's, and the fields that can hold values are left out. SQLSTATE, positions in
// the client's own text and names from the catalogue stay.

// statementOf is what an entry is about, nil when that is not known.
func (h *entry) statementOf() *sqlmeta.Statement {
	if a := h.current(); a != nil {
		return a.stmt
	}
	if h.prep != nil {
		return h.prep.analysis.stmt
	}
	if h.portal != nil {
		return h.portal.prep.analysis.stmt
	}
	return nil
}

// masksFor are the masks for what the server says about an entry, and whether it
// may quote masked columns.
func (e *Engine) masksFor(h *entry) (m *maskSet, redact bool) {
	m = e.masks
	if h != nil && h.masks != nil {
		m = h.masks
	}
	if !m.any() {
		return nil, false
	}
	if h == nil {
		return m, false
	}
	if h.endsString() && slices.ContainsFunc(h.acts, func(a act) bool { return m.touches(a.stmt) }) {
		return m, true
	}
	return m, m.byColumn && h.late() || m.touches(h.statementOf())
}

// late reports whether what runs just now does the work of any statement before it:
// at the end of a transaction, and when SET CONSTRAINTS asks for it, constraints and
// triggers that were put off are looked at and cursors WITH HOLD are run.
func (h *entry) late() bool {
	if h.kind == expectSync {
		return true
	}
	st := h.statementOf()
	return st != nil && (st.Effects.Tx == sqlmeta.TxCommit || st.Tag == "SET CONSTRAINTS")
}

// endsString reports whether the last of several statements of one string runs: the
// transaction that they share may end with it.
func (h *entry) endsString() bool {
	n := len(h.acts)
	return h.kind == expectQuery && n > 1 && h.current() == &h.acts[n-1]
}

// showError forwards an error or a notice about an entry.
func (e *Engine) showError(h *entry, frame []byte, inPlace bool, out *session.Output) error {
	m, redact := e.masksFor(h)
	if m == nil {
		e.emit(frame, inPlace, out)
		return nil
	}
	keep := withheld{all: !redact}
	if redact {
		keep = readWithheld(frame[headerLen:])
	}
	if e.wantsOriginals() {
		_, text := messageText(frame[headerLen:])
		e.originalMessage([]byte(text))
	}
	hits := make([]int64, 0)
	if m.set != nil {
		hits = make([]int64, m.set.Len())
	}
	out.ToClient.Build(func(dst []byte) []byte {
		dst, mark := beginFrame(dst, frame[0])
		fieldsOf(frame[headerLen:], func(kind byte, v []byte) {
			if keep.shows(kind) {
				dst = append(dst, kind)
				dst = append(appendField(dst, kind, v, m, &keep, hits), 0)
			}
		})
		return endFrame(append(dst, 0), mark)
	})
	for i, n := range hits {
		e.countHit("message", m.set, i, n)
	}
	return nil
}

// withheld is what of an error or a notice may be shown.
type withheld struct {
	all      bool   // it has nothing to do with masked columns
	ownText  bool   // it is about the client's own text: see aboutText
	names    bool   // the names of objects are the catalogue's
	sqlstate string // for the words that stand in place of the message
	object   string
}

// readWithheld looks at an error or a notice about masked columns.
func readWithheld(body []byte) withheld {
	field := make(map[byte]string, 16)
	fieldsOf(body, func(kind byte, v []byte) { field[kind] = string(v) })
	w := withheld{sqlstate: field['C']}
	raised := programWrote(field['C'])
	if field['R'] == raiseRoutine || !mask.StandardSQLState(field['C']) { // a code of the program's choice
		raised = true
		if w.sqlstate = "P0001"; isNotice(field['V']) {
			w.sqlstate = "01000"
		}
	}
	w.ownText = !raised && aboutText(field)
	// A program gives names of its own choice (RAISE ... USING TABLE = value), and
	// stands in the context then. COPY's context is the server's.
	where, inside := field['W']
	w.names = !raised && (!inside || strings.HasPrefix(where, "COPY "))
	if w.names {
		w.object = objectNamed(field)
	}
	return w
}

// raiseRoutine is the server's function behind RAISE (pl_exec.c).
const raiseRoutine = "exec_stmt_raise"

func isNotice(severity string) bool {
	return severity != "ERROR" && severity != "FATAL" && severity != "PANIC"
}

// aboutText reports whether parse analysis of the client's own text says this: the
// error has a position in that text and comes from the parser, not from inside a
// function or a query that the server made (which a value can be part of). Nothing
// has been executed then, so it can quote only what the client wrote and what the
// catalogue has.
func aboutText(field map[byte]string) bool {
	for _, kind := range []byte("pqW") {
		if _, ok := field[kind]; ok {
			return false
		}
	}
	file := field['F']
	return field['P'] != "" && (strings.HasPrefix(file, "parse_") || file == "scan.l" || file == "gram.y")
}

// objectNamed says for people what the server names in fields that psql does not
// show by default.
func objectNamed(field map[byte]string) string {
	var b strings.Builder
	add := func(word string, kind byte) {
		if field[kind] != "" {
			b.WriteString(word + quoted(field[kind]))
		}
	}
	switch {
	case field['n'] != "":
		add("constraint ", 'n')
	case field['c'] != "":
		add("column ", 'c')
	case field['d'] != "":
		add("type ", 'd')
	}
	if b.Len() > 0 {
		add(" of ", 't')
	}
	return b.String()
}

// shows reports whether a field of this kind is kept at all.
func (w *withheld) shows(kind byte) bool {
	if w.all {
		return true
	}
	switch kind {
	case 'S', 'V', 'C', 'M', 'P', 'F', 'L', 'R':
		return true
	case 's', 't', 'c', 'd', 'n':
		return w.names
	case 'D', 'H':
		return w.ownText
	}
	return false
}

// programWrote reports SQLSTATEs under which a function's own words come: RAISE, and
// the plain notice and warning.
func programWrote(code string) bool {
	return strings.HasPrefix(code, "P0") || code == "00000" || code == "01000"
}

func appendField(dst []byte, kind byte, v []byte, m *maskSet, w *withheld, hits []int64) []byte {
	switch kind {
	case 'C':
		if !w.all {
			return append(dst, w.sqlstate...)
		}
		return append(dst, v...)
	case 'S', 'V', 'P', 'p', 'F', 'L', 'R', 's', 't', 'c', 'd', 'n':
		return append(dst, v...)
	case 'M':
		if !w.all && !w.ownText {
			return mask.RedactMessage(dst, v, w.sqlstate, w.object)
		}
	}
	if m.set == nil {
		return append(dst, v...)
	}
	return m.set.AppendMessage(dst, v, hits)
}

// shownSetting is a reported setting as the client may see it: set_config can put
// data into one.
func (e *Engine) shownSetting(value string) string {
	m, redact := e.masksFor(e.queue.head())
	switch {
	case m == nil:
		return value
	case redact:
		return mask.Redacted
	case m.set == nil:
		return value
	}
	return string(m.set.AppendMessage(nil, []byte(value), nil))
}

// notification forwards a NotificationResponse. Its payload can be anything, from a
// trigger of a masked table too: it is withheld where columns are masked, and goes
// through the detectors otherwise.
func (e *Engine) notification(frame []byte, inPlace bool, out *session.Output) error {
	m, _ := e.masksFor(nil)
	body := frame[headerLen:]
	channel, payload := twoStrings(body[4:])
	if m == nil || m.set == nil && !m.byColumn || payload == "" {
		e.emit(frame, inPlace, out)
		return nil
	}
	out.ToClient.Build(func(dst []byte) []byte {
		dst, mark := beginFrame(dst, srvNotification)
		dst = binary.BigEndian.AppendUint32(dst, binary.BigEndian.Uint32(body))
		dst = append(append(dst, channel...), 0)
		if m.byColumn {
			dst = append(dst, mask.Redacted...)
		} else {
			dst = m.set.AppendMessage(dst, []byte(payload), nil)
		}
		return endFrame(append(dst, 0), mark)
	})
	return nil
}
