package pglog

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxRecord bounds one record of the server's log, bytes. A longer one counts as
// unreadable.
const maxRecord = 64 << 20

var errTooLong = errors.New("a record is longer than 64 MiB")

// records cuts a log into records, which may be of several lines.
type records struct {
	r      *bufio.Reader
	quoted bool // a line feed between double quotes is part of the record (csvlog)
	tabbed bool // a line that begins with a tab goes on with the record (stderr)

	buf        []byte
	unfinished bool // the record has no line feed at its end
	size       int  // of the record, more than buf when that is cut
	quotes     int
}

// read returns the next record without the line feed at its end; it is valid until the
// next call. errTooLong tells of one that was passed over.
func (r *records) read() ([]byte, error) {
	r.buf, r.size, r.quotes, r.unfinished = r.buf[:0], 0, 0, false
	for {
		err := r.line()
		if err == io.EOF && r.size > 0 {
			r.unfinished = true
			break
		}
		if err != nil {
			return nil, err
		}
		if r.quoted && r.quotes%2 == 1 {
			continue
		}
		if b, _ := r.r.Peek(1); !r.tabbed || len(b) == 0 || b[0] != '\t' {
			break
		}
	}
	if r.size > maxRecord {
		r.buf = nil
		return nil, errTooLong
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(r.buf, []byte("\n")), []byte("\r")), nil
}

// line takes one more line into the record, as far as there is room.
func (r *records) line() error {
	for {
		part, err := r.r.ReadSlice('\n')
		if r.size += len(part); r.size <= maxRecord {
			r.buf = append(r.buf, part...)
		}
		if r.quoted {
			r.quotes += bytes.Count(part, []byte{'"'})
		}
		if err != bufio.ErrBufferFull {
			return err
		}
	}
}
