package mask

import "encoding/binary"

// copySignature starts a binary COPY; flags and the length of an extension
// follow, four bytes each (PostgreSQL manual, COPY, binary format).
const copySignature = "PGCOPY\n\xff\r\n\x00"

// binaryRows reads the binary format: the number of fields, then length and
// bytes of each, -1 for NULL; -1 fields end the data.
type binaryRows struct {
	header bool // has been read
	ended  bool
	need   int // bytes that the next row is known to need
}

func (t *binaryRows) end(b []byte) (int, error) {
	if len(b) < t.need {
		return -1, nil
	}
	n, err := t.measure(b)
	if err != nil {
		return 0, err
	}
	if n > len(b) {
		t.need = n
		return -1, nil
	}
	t.need = 0
	return n, nil
}

// measure is the length of the header or row at the start of b; more than len(b)
// when that many bytes are needed to tell.
func (t *binaryRows) measure(b []byte) (int, error) {
	if t.ended {
		return 0, ErrCopyData
	}
	if !t.header {
		const fixed = len(copySignature) + 8
		if len(b) < fixed {
			return fixed, nil
		}
		extension := binary.BigEndian.Uint32(b[fixed-4:])
		if string(b[:len(copySignature)]) != copySignature || extension > MaxCopyRow {
			return 0, ErrCopyData
		}
		return fixed + int(extension), nil
	}
	if len(b) < 2 {
		return 2, nil
	}
	at := 2
	for fields := int16(binary.BigEndian.Uint16(b)); fields > 0; fields-- {
		if len(b) < at+4 {
			return at + 4, nil
		}
		n := int32(binary.BigEndian.Uint32(b[at:]))
		if n < -1 {
			return 0, ErrCopyData
		}
		at += 4 + int(max(n, 0))
		if at > len(b) {
			return at, nil
		}
	}
	return at, nil
}

func (t *binaryRows) rewrite(c *Copy, dst, row []byte) ([]byte, bool, error) {
	if !t.header {
		t.header = true
		return dst, false, nil
	}
	fields := int(int16(binary.BigEndian.Uint16(row)))
	if fields == -1 {
		t.ended = true
		return dst, false, nil
	}
	if fields != len(c.columns) {
		return dst, false, ErrCopyData
	}
	last, changed, at := 0, false, 2
	for i := range c.columns {
		n := int32(binary.BigEndian.Uint32(row[at:]))
		begin := at
		at += 4 + int(max(n, 0))
		if c.columns[i].Idle() {
			continue
		}
		var r Result
		if n == -1 {
			r = c.nullField(i)
		} else {
			r = c.field(i, row[begin+4:at])
		}
		switch r {
		case IsNull:
			dst = append(append(dst, row[last:begin]...), 0xff, 0xff, 0xff, 0xff)
			last, changed = at, true
		case Changed:
			dst = append(dst, row[last:begin]...)
			dst = binary.BigEndian.AppendUint32(dst, uint32(len(c.masked)))
			dst = append(dst, c.masked...)
			last, changed = at, true
		}
	}
	if !changed {
		return dst, false, nil
	}
	return append(dst, row[last:]...), true, nil
}
