package postgres

import (
	"encoding/binary"
	"fmt"

	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// beginCopyOut takes CopyOutResponse and makes the plan of the stream.
func (e *Engine) beginCopyOut(h *entry, body []byte) error {
	e.copyOut, e.copier = true, nil
	if !h.masks.any() {
		return nil
	}
	a := h.current()
	c := a.stmt.Copy
	if c == nil || c.In {
		return fmt.Errorf("a COPY that weir cannot mask: it did not see its options")
	}
	encoding := c.Encoding
	if encoding == "" {
		encoding = e.encoding
	}
	if !mask.SafeEncoding(encoding) {
		return fmt.Errorf("a COPY that weir cannot mask: its encoding cannot be read safely")
	}
	binaryData := c.Format == "binary"
	if binaryData != (body[0] == 1) {
		return fmt.Errorf("COPY in another format than the statement's: %w", errMalformed)
	}
	columns := copyColumns(a.stmt, int(binary.BigEndian.Uint16(body[1:])), binaryData)
	p := h.masks.newPlan(columns, a.stmt)
	if p == nil {
		return nil
	}
	e.newResult()
	f := mask.CopyFormat{Format: c.Format, Delimiter: c.Delimiter, Quote: c.Quote, Escape: c.Escape, Null: &c.Null, Header: c.Header}
	copier, err := mask.NewCopy(f, p.columns)
	if err != nil {
		return err
	}
	e.plan, e.copier = p, copier
	return nil
}

// copyColumns are the n columns of a COPY TO, about which the server says nothing: what
// they carry stands in the statement's lineage.
func copyColumns(st *sqlmeta.Statement, n int, binaryData bool) []Column {
	out := make([]Column, n)
	for i := range out {
		out[i] = Column{Name: fmt.Sprintf("column %d", i+1), Type: textOID, Format: mask.TextFormat}
		if binaryData {
			out[i].Type, out[i].Format = unknownOID, mask.BinaryFormat
		}
		if len(st.Output) == n && st.Output[i].Name != "" {
			out[i].Name = st.Output[i].Name
		}
	}
	return out
}

const (
	// textOID is pg_type text: in the text formats of COPY every value is text.
	textOID = 25
	// unknownOID is no type: masked values become NULL.
	unknownOID = 0
)

// maskCopy forwards one CopyData message, with what has to be masked exchanged.
func (e *Engine) maskCopy(frame []byte, inPlace bool, out *session.Output) error {
	var err error
	changed, size := false, 0
	out.ToClient.Build(func(dst []byte) []byte {
		begin := len(dst)
		f, mark := beginFrame(dst, msgCopyData)
		if f, changed, err = e.copier.Append(f, frame[headerLen:]); err != nil || !changed || len(f) == begin+headerLen {
			return dst
		}
		size = len(f) - begin - headerLen
		return endFrame(f, mark)
	})
	if err != nil {
		return fmt.Errorf("COPY: %w", err)
	}
	if changed && e.wantsOriginals() {
		e.originalMessage(frame[headerLen:])
	}
	if !changed {
		size = len(frame) - headerLen
		e.emit(frame, inPlace, out)
	}
	e.bytes += int64(size)
	return nil
}

// endCopyOut passes on what the masker still held.
func (e *Engine) endCopyOut(out *session.Output) error {
	if e.copier == nil {
		return nil
	}
	var err error
	out.ToClient.Build(func(dst []byte) []byte {
		begin := len(dst)
		f, mark := beginFrame(dst, msgCopyData)
		if f, err = e.copier.Close(f); err != nil || len(f) == begin+headerLen {
			return dst
		}
		return endFrame(f, mark)
	})
	e.copier = nil
	if err != nil {
		return fmt.Errorf("COPY: %w", err)
	}
	return nil
}
