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
	columns := h.masks.copyColumns(a, int(binary.BigEndian.Uint16(body[1:])), binaryData)
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

// copyColumns are the n columns of a COPY TO: of a relation by name, of a query by
// its description, else without an origin.
func (m *maskSet) copyColumns(a *act, n int, binaryData bool) []Column {
	c := a.stmt.Copy
	out := make([]Column, n)
	switch {
	case c.Query != "" && len(a.copied) == n:
		copy(out, a.copied)
	case c.Query == "" && len(c.Columns) == n:
		r := m.catalog.Relation(c.Schema, c.Relation)
		for i, name := range c.Columns {
			out[i] = Column{Name: name, Relation: c.OID, Attr: attrOf(r, c.OID, name), Type: textOID}
			if binaryData {
				out[i].Type = unknownOID
			}
		}
	default:
		for i := range out {
			out[i] = Column{Name: fmt.Sprintf("column %d", i+1), Type: unknownOID}
			if !binaryData {
				out[i].Type = textOID
			}
			if c.Query == "" {
				out[i].Relation, out[i].Attr = noRelation, 1 // as newer than the catalogue: masked
			}
		}
	}
	for i := range out {
		out[i].Format = mask.TextFormat
		if binaryData {
			out[i].Format = mask.BinaryFormat
		}
	}
	return out
}

const (
	// textOID is pg_type text: in the text formats of COPY every value is text.
	textOID = 25
	// unknownOID is no type: masked values become NULL.
	unknownOID = 0
	// noRelation is an OID that no relation of a user has (InvalidOid is 0; 1 is
	// pg_type's bool in another catalogue).
	noRelation = 1
)

// attrOf is a column's number in the relation, one that the catalogue does not know
// when it does not have the column.
func attrOf(r *sqlmeta.Relation, oid uint32, name string) int16 {
	if r != nil && r.OID == oid {
		for i, c := range r.Columns {
			if c == name {
				return int16(i + 1)
			}
		}
	}
	return 1<<15 - 1
}

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
