package mask

import "bytes"

// Wire formats of a value (protocol 3.0, RowDescription).
const (
	TextFormat   int16 = 0
	BinaryFormat int16 = 1
)

// Result says what became of a value.
type Result uint8

// Results. After Unchanged the output is the destination as it was, and the
// caller forwards the original bytes; after Null it sends SQL NULL.
const (
	Unchanged Result = iota
	Changed
	IsNull
)

// Column is what happens to the values of one result column: a mask of the
// whole, or a search by detectors, or nothing. It counts what it does and so
// belongs to one result at a time.
type Column struct {
	class  Class
	binary bool
	method Method
	key    *Key
	set    *Set
	search search
	nulls  bool // NULLs are replaced too

	Masked int64   // values replaced whole
	Hits   []int64 // findings, by the index of the set's detectors
}

// NewColumn makes the plan of one column. Method 0 means no mask of the whole; a
// nil set means no search. With a nil key Hash and Token redact. A wire format
// other than text and binary gives NULL for everything that would be masked or
// searched.
func NewColumn(class Class, format int16, method Method, key *Key, set *Set) *Column {
	c := &Column{class: class, binary: format != TextFormat, method: method, key: key, set: set}
	if format != TextFormat && format != BinaryFormat {
		c.class, c.method = Opaque, Null
	}
	if method == 0 && set != nil && set.searches(c.class) {
		c.Hits = make([]int64, set.Len())
		c.search.set, c.search.hits = set, c.Hits
	} else {
		c.set = nil
	}
	return c
}

// HideNulls says that the column is computed from masked ones: NULLs are replaced
// as well, because whether nullif, regexp_match or a subscript gives NULL answers a
// question about the value. For the same reason every value then looks like every
// other: a method other than Null redacts. It has no effect without a method.
func (c *Column) HideNulls() {
	if c.method == 0 {
		return
	}
	c.nulls, c.method = true, max(c.method, Redact)
}

// hideNullMarker says that the reader has chosen a text which stands for NULL and is
// masked like a value. Its hash or token would answer a guess, so that these redact.
func (c *Column) hideNullMarker() {
	if c.method == Hash || c.method == Token {
		c.method = Redact
	}
}

// AppendNull appends what stands for a NULL: after HideNulls the same as for any
// value, where the class has such a text. Otherwise it says Unchanged and the NULL
// stays, as the column's masked values are NULL too.
func (c *Column) AppendNull(dst []byte) ([]byte, Result) {
	if !c.nulls || c.method != Redact {
		return dst, Unchanged
	}
	dst, r := c.appendRedacted(dst)
	if r == IsNull {
		return dst, Unchanged
	}
	c.Masked++
	return dst, r
}

// appendRedacted appends what Redact shows of any value of the class.
func (c *Column) appendRedacted(dst []byte) ([]byte, Result) {
	switch c.class {
	case Text, XML:
		return append(dst, Redacted...), Changed
	case Char:
		return append(dst, '*'), Changed
	case JSONB:
		if c.binary {
			dst = append(dst, jsonbVersion)
		}
		return append(dst, `"`+Redacted+`"`...), Changed
	case JSON:
		return append(dst, `"`+Redacted+`"`...), Changed
	}
	return dst, IsNull
}

// Idle reports that the column's values are never changed.
func (c *Column) Idle() bool { return c.method == 0 && c.set == nil }

// AppendMasked appends what the reader may see of a value that is not NULL.
func (c *Column) AppendMasked(dst, v []byte) ([]byte, Result) {
	if c.method != 0 {
		c.Masked++
		return c.appendWhole(dst, v)
	}
	if c.set == nil {
		return dst, Unchanged
	}
	if c.class == Text {
		if len(v) < c.set.minLen {
			return dst, Unchanged
		}
		return c.set.AppendMasked(dst, v, c.Hits)
	}
	c.search.deep = false
	return c.search.value(dst, v, c.class, c.binary, 0)
}

func (c *Column) appendWhole(dst, v []byte) ([]byte, Result) {
	switch c.method {
	case Null:
		return dst, IsNull
	case Redact:
		return c.appendRedacted(dst)
	}
	switch c.class {
	case Text:
		return appendText(dst, c.method, v, c.key), Changed
	case Char:
		if c.method == Hash || c.method == Token {
			return dst, IsNull
		}
		return append(dst, '*'), Changed
	case XML:
		m := c.method
		if m == Last4 || m == Email {
			m = Redact
		}
		return appendText(dst, m, v, c.key), Changed
	case JSON:
		return appendJSONWhole(dst, c.method, v, c.key), Changed
	case JSONB:
		if c.binary {
			if len(v) == 0 || v[0] != jsonbVersion {
				return dst, IsNull
			}
			dst, v = append(dst, jsonbVersion), v[1:]
		}
		return appendJSONWhole(dst, c.method, v, c.key), Changed
	}
	return dst, IsNull
}

// jsonbVersion is the first byte of binary jsonb (PostgreSQL source, jsonb.c).
const jsonbVersion = 1

// appendJSONWhole appends a JSON string that stands for a whole JSON value.
func appendJSONWhole(dst []byte, m Method, v []byte, key *Key) []byte {
	if m == Last4 || m == Email {
		trimmed := bytes.Trim(v, " \t\r\n")
		n := len(trimmed)
		switch {
		case n >= 2 && trimmed[0] == '"' && trimmed[n-1] == '"' && plainJSON(trimmed[1:n-1]):
			v = trimmed[1 : n-1]
		case n > 0 && (isDigit(trimmed[0]) || trimmed[0] == '-') && plainJSON(trimmed):
			v = trimmed
		default:
			m = Redact
		}
	}
	return append(appendText(append(dst, '"'), m, v, key), '"')
}

// plainJSON reports that text may stand in a JSON string as it is.
func plainJSON(v []byte) bool {
	for _, b := range v {
		if b < ' ' || b == '"' || b == '\\' {
			return false
		}
	}
	return true
}
