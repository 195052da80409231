package postgres

import (
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/mask"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Sources of a mask (contract, section 4).
const (
	sourceOrigin     = "origin"
	sourceLineage    = "lineage"
	sourceDetector   = "detector"
	sourceUnresolved = "unresolved"
)

// plan is what happens to the columns of one result.
type plan struct {
	columns []*mask.Column
	infos   []maskInfo
	set     *mask.Set
	// original is told of each value that is exchanged; nil when nobody wants to know.
	original func(column int, value []byte, null bool)
}

// maskInfo is how a column's masks are recorded.
type maskInfo struct {
	name     string
	method   mask.Method
	source   string
	computed bool           // the value is made from masked ones: that it is NULL tells about them
	masks    []*policy.Mask // that decided
}

// rowColumns reads a RowDescription.
func rowColumns(body []byte) ([]Column, error) {
	var m pgproto3.RowDescription
	if err := decodeServer(srvRowDescription, body, &m); err != nil {
		return nil, err
	}
	out := make([]Column, len(m.Fields))
	for i, f := range m.Fields {
		out[i] = Column{Name: string(f.Name), Relation: f.TableOID, Attr: int16(f.TableAttributeNumber), Type: f.DataTypeOID, Format: f.Format}
	}
	return out, nil
}

// newPlan makes the plan of a result; nil when nothing in it has to be looked at.
func (m *maskSet) newPlan(columns []Column, st *sqlmeta.Statement) *plan {
	p := &plan{columns: make([]*mask.Column, len(columns)), infos: make([]maskInfo, len(columns)), set: m.set}
	active := false
	for i := range columns {
		c := &columns[i]
		info := m.origin(c, i, len(columns), st)
		if info.name == "" {
			info.name = c.Name
		}
		p.infos[i] = info
		p.columns[i] = mask.NewColumn(m.class(c.Type), c.Format, info.method, m.config.Key, m.set)
		if info.computed {
			p.columns[i].HideNulls()
		}
		active = active || !p.columns[i].Idle()
	}
	if !active {
		return nil
	}
	return p
}

// origin decides the column at a position of a result: by what the server says about
// where it comes from, as far as that is a table's column, else by the statement's
// lineage.
func (m *maskSet) origin(c *Column, position, n int, st *sqlmeta.Statement) maskInfo {
	if !m.byColumn {
		return maskInfo{}
	}
	if c.Relation != 0 && c.Attr < 0 {
		return maskInfo{} // a system column
	}
	if c.Relation != 0 && c.Attr > 0 {
		var r *sqlmeta.Relation
		if m.catalog != nil {
			r = m.catalog.Relations[c.Relation]
		}
		switch {
		case r == nil || int(c.Attr) > len(r.Columns) || r.Columns[c.Attr-1] == "":
			return maskInfo{name: c.Name, method: m.whole, source: sourceUnresolved, computed: true} // newer than the catalogue
		case m.doubt.of(r.Name) && len(m.columns) > 0:
			return maskInfo{name: r.Schema + "." + r.Name + "." + r.Columns[c.Attr-1], method: m.whole, source: sourceUnresolved, computed: true}
		case r.Kind != 'v' && r.Kind != 'm' && r.OID >= firstUserOID: // the server's own may hold samples of anything
			masked, ok := m.columns[sqlmeta.ColumnID{Relation: c.Relation, Attr: c.Attr}]
			if !ok {
				return maskInfo{name: r.Schema + "." + r.Name + "." + r.Columns[c.Attr-1]}
			}
			return maskInfo{name: masked.name, method: masked.method, source: sourceOrigin, masks: masked.masks}
		}
	}
	switch {
	case st == nil || !st.Rows:
		return m.lineage(&sqlmeta.Lineage{Unknown: "weir did not see the statement"})
	case len(st.Output) == n:
		return m.lineage(&st.Output[position].Lineage)
	}
	l := st.All
	if l.Plain = l.Empty(); st.Output != nil {
		l.Unknown = "the server returns other columns than the statement's text shows"
	}
	return m.lineage(&l)
}

// class is what is known of a type. Of a user's type that the catalogue does not
// know nothing is: what would be masked becomes NULL.
func (m *maskSet) class(oid uint32) mask.Class {
	if mask.BuiltIn(oid) {
		return mask.ClassOf(oid)
	}
	t, ok := m.catalog.Type(oid)
	if !ok {
		return mask.Unknown
	}
	textElements := false
	if t.Element != 0 {
		element, ok := m.catalog.Type(t.Element)
		textElements = mask.ClassOf(t.Element) == mask.Text || ok && element.TextWire
	}
	return mask.UserClass(t.Kind, t.TextWire, textElements)
}

// newResult forgets the plan of a result whose rows are over.
func (e *Engine) newResult() {
	e.collectCounts()
	e.plan, e.planned, e.described = nil, false, false
}

// describeRows takes the RowDescription of a simple query.
func (e *Engine) describeRows(h *entry, body []byte) error {
	e.newResult()
	e.described, e.planned = true, true
	if !h.masks.any() {
		return nil
	}
	columns, err := rowColumns(body)
	if err != nil {
		return err
	}
	e.plan = h.masks.newPlan(columns, h.current().stmt)
	return nil
}

// planRows makes the plan of an Execute when its first row comes.
func (e *Engine) planRows(h *entry) error {
	if e.planned {
		return nil
	}
	e.planned = true
	if !h.masks.any() {
		return nil
	}
	if h.portal == nil || h.portal.columns == nil {
		return fmt.Errorf("the server sent a row before its description")
	}
	e.plan = h.masks.newPlan(h.portal.columns, h.current().stmt)
	return nil
}

// maskRow forwards a DataRow, with what has to be masked exchanged.
func (e *Engine) maskRow(frame []byte, inPlace bool, out *session.Output) error {
	if e.row.build == nil {
		e.row.build = e.buildRow // once: a closure for each row would be an allocation
	}
	e.row.frame = frame
	if e.plan.original = nil; e.wantsOriginals() {
		e.plan.original = e.original
	}
	out.ToClient.Build(e.row.build)
	e.row.frame = nil
	if e.row.err != nil {
		return e.row.err
	}
	if !e.row.changed {
		e.row.size = len(frame) - headerLen
		e.emit(frame, inPlace, out)
	}
	e.bytes += int64(e.row.size)
	return nil
}

// rowMasking is what maskRow and buildRow say to each other.
type rowMasking struct {
	build   func(dst []byte) []byte
	frame   []byte
	changed bool
	size    int
	err     error
}

func (e *Engine) buildRow(dst []byte) []byte {
	r := &e.row
	grown, changed, err := e.plan.appendRow(dst, r.frame[headerLen:])
	r.changed, r.err = changed, err
	if err != nil || !changed {
		return dst
	}
	r.size = len(grown) - len(dst) - headerLen
	return grown
}

// appendRow appends the whole DataRow message when any value changes.
func (p *plan) appendRow(dst, body []byte) (out []byte, changed bool, err error) {
	if len(body) < 2 || int(binary.BigEndian.Uint16(body)) != len(p.columns) {
		return dst, false, fmt.Errorf("a row that does not fit its description: %w", errMalformed)
	}
	mark, done, at := 0, 0, 2 // body[:done] has been copied
	for i, c := range p.columns {
		if len(body)-at < 4 {
			return dst, false, fmt.Errorf("DataRow: %w", errMalformed)
		}
		n := int64(int32(binary.BigEndian.Uint32(body[at:])))
		value := at + 4
		if n < -1 || n > int64(len(body)-value) {
			return dst, false, fmt.Errorf("DataRow: %w", errMalformed)
		}
		end := value + int(max(n, 0))
		if !c.Idle() {
			if dst, mark, done, err = appendValue(dst, body, c, mark, done, at, value, end); err != nil {
				return dst, false, err
			}
			if p.original != nil && done == end {
				p.original(i, body[value:end], n < 0)
			}
		}
		at = end
	}
	if at != len(body) {
		return dst, false, fmt.Errorf("DataRow: %w", errMalformed)
	}
	if mark == 0 {
		return dst, false, nil
	}
	return endFrame(append(dst, body[done:]...), mark), true, nil
}

// appendValue appends one value when it changes, after what stands before it.
func appendValue(dst, body []byte, c *mask.Column, mark, done, at, value, end int) ([]byte, int, int, error) {
	begin, oldMark := len(dst), mark
	if mark == 0 {
		dst, mark = beginFrame(dst, srvDataRow)
	}
	dst = append(dst, body[done:value]...)
	start := len(dst)
	result := mask.Unchanged
	if int32(binary.BigEndian.Uint32(body[at:])) < 0 {
		dst, result = c.AppendNull(dst)
	} else {
		dst, result = c.AppendMasked(dst, body[value:end])
	}
	switch result {
	case mask.Unchanged:
		return dst[:begin], oldMark, done, nil
	case mask.IsNull:
		dst = dst[:start]
		binary.BigEndian.PutUint32(dst[start-4:], ^uint32(0))
	default:
		binary.BigEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
	}
	return dst, mark, end, nil
}

// maskCall forwards the result of a function call. It carries no origin: where
// columns are masked, only the server's own functions may answer.
func (e *Engine) maskCall(frame []byte, inPlace bool, out *session.Output) error {
	h, body := e.queue.head(), frame[headerLen:]
	if len(body) < 4 {
		return fmt.Errorf("function call's answer: %w", errMalformed)
	}
	n := int64(int32(binary.BigEndian.Uint32(body)))
	if n < -1 || max(n, 0) != int64(len(body)-4) {
		return fmt.Errorf("function call's answer: %w", errMalformed)
	}
	method := mask.Method(0)
	if h.masks.byColumn && !h.builtIn {
		method = mask.Null
	}
	class := mask.Unknown
	if h.format == mask.TextFormat {
		class = mask.Text
	}
	info := maskInfo{name: "function call", method: method, source: sourceUnresolved}
	p := &plan{columns: []*mask.Column{mask.NewColumn(class, h.format, method, h.masks.config.Key, h.masks.set)}, infos: []maskInfo{info}, set: h.masks.set}
	if n >= 0 && !p.columns[0].Idle() {
		value, result := p.columns[0].AppendMasked(nil, body[4:])
		e.plan = p
		if result != mask.Unchanged {
			if e.wantsOriginals() {
				e.originalMessage(body[4:])
			}
			f, mark := beginFrame(nil, srvCallResponse)
			if result == mask.IsNull {
				f = binary.BigEndian.AppendUint32(f, ^uint32(0))
			} else {
				f = append(binary.BigEndian.AppendUint32(f, uint32(len(value))), value...)
			}
			frame, inPlace = endFrame(f, mark), false
		}
	}
	e.bytes += int64(len(frame) - headerLen)
	e.emit(frame, inPlace, out)
	return nil
}

// collectCounts adds what the plan has counted to the outcome.
func (e *Engine) collectCounts() {
	if e.plan == nil {
		return
	}
	for i, c := range e.plan.columns {
		info := &e.plan.infos[i]
		if c.Masked > 0 {
			e.count(auditlog.Mask{Column: info.name, Method: info.method.String(), Source: info.source}, c.Masked)
		}
		for d, n := range c.Hits {
			e.countHit(info.name, e.plan.set, d, n)
		}
	}
	e.plan = nil
}

func (e *Engine) countHit(column string, set *mask.Set, detector int, n int64) {
	if n > 0 {
		name, method := set.Detector(detector)
		e.count(auditlog.Mask{Column: column, Method: method.String(), Source: sourceDetector, Detector: name}, n)
	}
}

// count adds to the record of a mask. A result has at most 1,664 columns.
func (e *Engine) count(m auditlog.Mask, n int64) {
	for i := range e.counts {
		have := &e.counts[i]
		if have.Column == m.Column && have.Method == m.Method && have.Source == m.Source && have.Detector == m.Detector {
			have.Count += n
			return
		}
	}
	m.Count = n
	e.counts = append(e.counts, m)
}
