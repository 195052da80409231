package postgres

import (
	"encoding/binary"
	"strings"

	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Errors and notices quote data: DETAIL shows rows, CONTEXT shows values, a cast's
// message shows what did not fit. They go through the detectors, and where the
// running statement has to do with masked columns the fields that can hold values
// are redacted. SQLSTATE, names of constraints and positions stay.

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
	if h.kind == expectSync { // deferred constraints and triggers: of any statement before
		return m, m.byColumn
	}
	return m, m.touches(h.statementOf())
}

// showError forwards an error or a notice about an entry.
func (e *Engine) showError(h *entry, frame []byte, inPlace bool, out *session.Output) error {
	m, redact := e.masksFor(h)
	if m == nil {
		e.emit(frame, inPlace, out)
		return nil
	}
	raised := false
	fieldsOf(frame[headerLen:], func(kind byte, v []byte) {
		raised = raised || kind == 'C' && programWrote(string(v))
	})
	hits := make([]int64, 0)
	if m.set != nil {
		hits = make([]int64, m.set.Len())
	}
	out.ToClient.Build(func(dst []byte) []byte {
		dst, mark := beginFrame(dst, frame[0])
		fieldsOf(frame[headerLen:], func(kind byte, v []byte) {
			dst = append(dst, kind)
			dst = append(appendField(dst, kind, v, m, redact, raised, hits), 0)
		})
		return endFrame(append(dst, 0), mark)
	})
	for i, n := range hits {
		e.countHit("message", m.set, i, n)
	}
	return nil
}

// programWrote reports SQLSTATEs under which a function's own words come: RAISE, and
// the plain notice and warning.
func programWrote(code string) bool {
	return strings.HasPrefix(code, "P0") || code == "00000" || code == "01000"
}

func appendField(dst []byte, kind byte, v []byte, m *maskSet, redact, raised bool, hits []int64) []byte {
	switch kind {
	case 'S', 'V', 'C', 'P', 'p', 'F', 'L', 'R', 's', 't', 'c', 'd', 'n':
		return append(dst, v...)
	case 'M':
		if redact && raised {
			return append(dst, mask.Redacted...)
		}
		if redact {
			begin := len(dst)
			dst = mask.RedactMessage(dst, v)
			if m.set == nil {
				return dst
			}
			plain := append([]byte(nil), dst[begin:]...)
			return m.set.AppendMessage(dst[:begin], plain, hits)
		}
	default:
		if redact {
			return append(dst, mask.Redacted...)
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

// notification forwards a NotificationResponse, its payload through the detectors.
func (e *Engine) notification(frame []byte, inPlace bool, out *session.Output) error {
	m, _ := e.masksFor(nil)
	if m == nil || m.set == nil {
		e.emit(frame, inPlace, out)
		return nil
	}
	body := frame[headerLen:]
	channel, payload := twoStrings(body[4:])
	out.ToClient.Build(func(dst []byte) []byte {
		dst, mark := beginFrame(dst, srvNotification)
		dst = binary.BigEndian.AppendUint32(dst, binary.BigEndian.Uint32(body))
		dst = append(append(dst, channel...), 0)
		dst = m.set.AppendMessage(dst, []byte(payload), nil)
		return endFrame(append(dst, 0), mark)
	})
	return nil
}
