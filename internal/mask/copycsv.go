package mask

import "bytes"

// csvRows reads the CSV format as the server writes it: a field is quoted as a
// whole or not at all, a newline outside of quotes ends a row.
type csvRows struct {
	quote, escape byte
	header        bool
	scanned       int
	quoted        bool // the byte after scanned is within quotes
}

func (t *csvRows) end(b []byte) (int, error) {
	i := t.scanned
	for ; i < len(b); i++ {
		switch {
		case t.quoted && b[i] == t.escape && t.escape != t.quote:
			if i+1 == len(b) {
				t.scanned = i
				return -1, nil
			}
			if b[i+1] == t.quote || b[i+1] == t.escape {
				i++
			}
		case b[i] == t.quote: // two in a row close and open again
			t.quoted = !t.quoted
		case b[i] == '\n' && !t.quoted:
			t.scanned = 0
			return i + 1, nil
		}
	}
	t.scanned = i
	return -1, nil
}

func (t *csvRows) rewrite(c *Copy, dst, row []byte) ([]byte, bool, error) {
	if t.header {
		t.header = false
		return dst, false, nil
	}
	line := row[:len(row)-1]
	last, changed := 0, false
	for i, at := 0, 0; ; i++ {
		begin := at
		plain, isNull, end, ok := t.field(c, line, at)
		if !ok || i >= len(c.columns) {
			return dst, false, ErrCopyData
		}
		at = end
		if !c.columns[i].Idle() {
			var r Result
			if isNull {
				r = c.nullField(i)
			} else {
				r = c.field(i, plain)
			}
			if r != Unchanged {
				dst = append(dst, row[last:begin]...)
				if r == IsNull {
					dst = append(dst, c.null...)
				} else {
					dst = t.escapeField(dst, c.masked)
				}
				last, changed = at, true
			}
		}
		if at == len(line) {
			if i != len(c.columns)-1 {
				return dst, false, ErrCopyData
			}
			break
		}
		at++
	}
	if !changed {
		return dst, false, nil
	}
	return append(dst, row[last:]...), true, nil
}

// field reads the field that starts at line[at] up to the delimiter or the end.
func (t *csvRows) field(c *Copy, line []byte, at int) (plain []byte, isNull bool, end int, ok bool) {
	if at == len(line) || line[at] != t.quote {
		end = at
		for end < len(line) && line[end] != c.Delimiter {
			if line[end] == t.quote {
				return nil, false, 0, false
			}
			end++
		}
		return line[at:end], bytes.Equal(line[at:end], c.null), end, true
	}
	c.buf = c.buf[:0]
	for i := at + 1; i < len(line); i++ {
		b := line[i]
		switch {
		case b == t.escape && i+1 < len(line) && (line[i+1] == t.quote || line[i+1] == t.escape):
			i++
			c.buf = append(c.buf, line[i])
		case b == t.quote:
			i++
			return c.buf, false, i, i == len(line) || line[i] == c.Delimiter
		default:
			c.buf = append(c.buf, b)
		}
	}
	return nil, false, 0, false
}

func (t *csvRows) escapeField(dst, v []byte) []byte {
	dst = append(dst, t.quote)
	for _, b := range v {
		if b == t.quote || b == t.escape {
			dst = append(dst, t.escape)
		}
		dst = append(dst, b)
	}
	return append(dst, t.quote)
}
