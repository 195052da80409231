package mask

import "bytes"

// textRows reads the text format: fields between delimiters, backslash escapes,
// a newline after each row (PostgreSQL manual, COPY, file formats).
type textRows struct {
	header  bool
	certain bool // a field that is the null marker is NULL and no value
	scanned int
}

func (t *textRows) end(b []byte) (int, error) {
	n := newlineAfter(b, t.scanned)
	if n < 0 {
		t.scanned = len(b)
		return -1, nil
	}
	t.scanned = 0
	return n, nil
}

func (t *textRows) rewrite(c *Copy, dst, row []byte) ([]byte, bool, error) {
	if t.header {
		t.header = false
		return dst, false, nil
	}
	line := row[:len(row)-1]
	if string(line) == `\.` { // end of data, sent by servers before 7.4
		return dst, false, nil
	}
	last, changed := 0, false
	for i, at := 0, 0; ; i++ {
		begin, escaped := at, false
		for at < len(line) && line[at] != c.Delimiter {
			if line[at] == '\\' {
				escaped = true
				at++
			}
			at++
		}
		if at > len(line) || i >= len(c.columns) {
			return dst, false, ErrCopyData
		}
		if raw := line[begin:at]; !c.columns[i].Idle() {
			var r Result
			if t.certain && bytes.Equal(raw, c.null) {
				r = c.nullField(i)
			} else {
				plain := raw
				if escaped {
					c.buf = unescapeCopy(c.buf[:0], raw)
					plain = c.buf
				}
				r = c.field(i, plain)
			}
			if r != Unchanged {
				dst = append(dst, row[last:begin]...)
				if r == IsNull {
					dst = append(dst, c.null...)
				} else {
					dst = escapeCopy(dst, c.masked, c.Delimiter)
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

// certainNull reports whether no value is written like the null marker. The server
// protects only a backslash and what it writes with one (CopyAttributeOutText), so
// with NULL '4111...' a row that has just this value looks like one without any.
func certainNull(marker []byte, delimiter byte) bool {
	for i := 0; i < len(marker); i++ {
		switch b := marker[i]; {
		case b == delimiter, b >= '\b' && b <= '\r':
			return true
		case b == '\\':
			i++
			if i == len(marker) || marker[i] != delimiter && bytes.IndexByte([]byte(`\bfnrtv`), marker[i]) < 0 {
				return true
			}
		}
	}
	return false
}

func unescapeCopy(dst, v []byte) []byte {
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' || i+1 == len(v) {
			dst = append(dst, v[i])
			continue
		}
		i++
		switch v[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'v':
			dst = append(dst, '\v')
		default: // the server writes no octal or hexadecimal escapes
			dst = append(dst, v[i])
		}
	}
	return dst
}

func escapeCopy(dst, v []byte, delimiter byte) []byte {
	for _, b := range v {
		switch {
		case b == delimiter || b == '\\':
			dst = append(dst, '\\', b)
		case b == '\b':
			dst = append(dst, `\b`...)
		case b == '\f':
			dst = append(dst, `\f`...)
		case b == '\n':
			dst = append(dst, `\n`...)
		case b == '\r':
			dst = append(dst, `\r`...)
		case b == '\t':
			dst = append(dst, `\t`...)
		case b == '\v':
			dst = append(dst, `\v`...)
		default:
			dst = append(dst, b)
		}
	}
	return dst
}
