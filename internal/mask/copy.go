package mask

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// MaxCopyRow bounds one row of COPY that is spread over several CopyData
// messages, bytes. PostgreSQL sends a row in one message, so nothing is held of
// an ordinary stream.
const MaxCopyRow = 16 << 20

// Errors of a Copy. The stream must end after any of them: what could not be
// read was not passed on.
var (
	ErrRowTooLong = fmt.Errorf("a row of COPY is spread over several messages and longer than %d bytes", MaxCopyRow)
	ErrCopyData   = errors.New("the data of COPY does not have the form that its options ask for")
)

// CopyFormat holds the options of a COPY ... TO. Zero values stand for
// PostgreSQL's defaults; Null is a pointer because the empty text is a null
// marker too.
type CopyFormat struct {
	Format    string // text (default) | csv | binary
	Delimiter byte
	Quote     byte // csv
	Escape    byte // csv
	Null      *string
	Header    bool // text, csv: the first line holds names and stays
}

// Copy masks the stream of a COPY ... TO. It belongs to one stream.
type Copy struct {
	CopyFormat
	null    []byte
	columns []*Column
	active  bool // any column that is not idle

	pending []byte // the begin of a row that is not complete
	rows    rowReader
	buf     []byte // scratch: an unescaped field
	masked  []byte // scratch: that field masked
	row     []byte // scratch: a row masked
}

// rowReader finds and rewrites rows of one format.
type rowReader interface {
	// end is the length of the first row or header in b, with whatever ends it,
	// -1 when it is not complete. It is called with a growing b until it says so.
	end(b []byte) (int, error)
	// rewrite appends the row, masked; changed false means that dst is as it was.
	rewrite(c *Copy, dst, row []byte) (out []byte, changed bool, err error)
}

// NewCopy makes a masker; columns are the plans of the stream's columns in
// order, made for the wire format that f names.
//
// A NULL stays one, but for columns with HideNulls, and in the text format for all
// masked columns when the null marker is a text that a value may have too: then
// what looks like NULL is masked as the value that it may be.
func NewCopy(f CopyFormat, columns []*Column) (*Copy, error) {
	c := &Copy{CopyFormat: f, columns: columns}
	setDefault := func(b *byte, value byte) {
		if *b == 0 {
			*b = value
		}
	}
	null := ""
	var text *textRows
	switch f.Format {
	case "", "text":
		text = &textRows{header: f.Header}
		c.rows = text
		setDefault(&c.Delimiter, '\t')
		null = `\N`
	case "csv":
		setDefault(&c.Delimiter, ',')
		setDefault(&c.Quote, '"')
		setDefault(&c.Escape, c.Quote)
		c.rows = &csvRows{quote: c.Quote, escape: c.Escape, header: f.Header}
	case "binary":
		c.rows = &binaryRows{}
	default:
		return nil, fmt.Errorf("COPY format %q is not known: text, csv or binary", f.Format)
	}
	if f.Null != nil {
		null = *f.Null
	}
	c.null = []byte(null)
	if text != nil {
		text.certain = certainNull(c.null, c.Delimiter)
	}
	for i, col := range columns {
		if !col.Idle() && col.binary != (f.Format == "binary") {
			return nil, fmt.Errorf("column %d of COPY is planned for another wire format", i+1)
		}
		if text != nil && !text.certain {
			col.hideNullMarker()
		}
		c.active = c.active || !col.Idle()
	}
	return c, nil
}

// Append takes the payload of one CopyData message. With changed false the
// caller forwards data as it is; otherwise out is dst and what may be passed on,
// which is nothing as long as no row is complete.
func (c *Copy) Append(dst, data []byte) (out []byte, changed bool, err error) {
	if !c.active {
		return dst, false, nil
	}
	held := len(c.pending) > 0
	if held {
		if len(c.pending)+len(data) > MaxCopyRow {
			return dst, false, ErrRowTooLong
		}
		c.pending = append(c.pending, data...)
		data = c.pending
	}
	begin, last, at := len(dst), 0, 0
	for at < len(data) {
		n, err := c.rows.end(data[at:])
		if err != nil {
			return dst[:begin], false, err
		}
		if n < 0 {
			break
		}
		row, rowChanged, err := c.rows.rewrite(c, c.row[:0], data[at:at+n])
		if err != nil {
			return dst[:begin], false, err
		}
		c.row = row[:0]
		if rowChanged {
			dst = append(append(dst, data[last:at]...), row...)
			last, changed = at+n, true
		}
		at += n
	}
	if !held && !changed && at == len(data) {
		return dst[:begin], false, nil
	}
	dst = append(dst, data[last:at]...)
	if len(data)-at > MaxCopyRow {
		return dst[:begin], false, ErrRowTooLong
	}
	c.pending = append(c.pending[:0], data[at:]...)
	c.trim()
	return dst, true, nil
}

// trim gives back the memory that an unusually long row took.
func (c *Copy) trim() {
	for _, b := range []*[]byte{&c.pending, &c.buf, &c.masked, &c.row} {
		if len(*b) == 0 && cap(*b) > keepScratch {
			*b = nil
		}
	}
}

// Close ends the stream (CopyDone) and appends what was held: a last line
// without a newline. Binary data that ends within a row is an error.
func (c *Copy) Close(dst []byte) ([]byte, error) {
	if len(c.pending) == 0 {
		return dst, nil
	}
	if _, binary := c.rows.(*binaryRows); binary {
		return dst, ErrCopyData
	}
	row := append(c.pending, '\n')
	c.pending = nil
	if n, err := c.rows.end(row); err != nil || n != len(row) {
		return dst, ErrCopyData
	}
	out, changed, err := c.rows.rewrite(c, dst, row)
	if err != nil {
		return dst, err
	}
	if !changed {
		out = append(dst, row...)
	}
	return out[:len(out)-1], nil
}

// field masks one field without its escapes.
func (c *Copy) field(i int, plain []byte) Result {
	masked, r := c.columns[i].AppendMasked(c.masked[:0], plain)
	c.masked = masked
	return r
}

// nullField is what stands for a NULL.
func (c *Copy) nullField(i int) Result {
	masked, r := c.columns[i].AppendNull(c.masked[:0])
	c.masked = masked
	return r
}

// asciiUnsafe are the client encodings in which a byte of a longer character may
// look like an ASCII one (PostgreSQL manual, 24.3: client-only encodings).
var asciiUnsafe = []string{"SJIS", "MSKANJI", "SHIFTJIS", "WIN932", "WINDOWS932", "SHIFTJIS2004", "BIG5", "WIN950", "WINDOWS950",
	"GBK", "WIN936", "WINDOWS936", "UHC", "WIN949", "WINDOWS949", "GB18030", "JOHAB"}

// SafeEncoding reports whether text in a client_encoding can be read byte by
// byte, as this package does. In the others a backslash or a quote may be half
// of a character, so results that need masking must be refused.
func SafeEncoding(clientEncoding string) bool {
	// Names are compared without case and punctuation (encnames.c).
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && isAlnum(byte(r)) {
			return r
		}
		return -1
	}, strings.ToUpper(clientEncoding))
	for _, unsafe := range asciiUnsafe {
		if name == unsafe {
			return false
		}
	}
	return name != ""
}

func newlineAfter(b []byte, from int) int {
	if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
		return from + i + 1
	}
	return -1
}
