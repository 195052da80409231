package postgres

import (
	"bytes"
	"encoding/binary"

	"github.com/weirproxy/weir/internal/flow"
)

// The validators below stand in front of every decode of pgproto3 v2, which panics
// on hostile bytes and makes slices as long as a message claims. Each accepts
// exactly the bodies that v2 decodes within their length.

// validate reports whether body is a well-formed body of the type. Types that are
// never decoded are not known to it.
func validateClient(kind byte, body []byte) bool {
	switch kind {
	case msgQuery:
		return cstringOnly(body)
	case msgParse:
		rest, ok := skipCString(body, 2)
		return ok && len(rest) >= 2 && len(rest) == 2+4*int(binary.BigEndian.Uint16(rest))
	case msgDescribe, msgClose:
		return len(body) >= 2 && (body[0] == 'S' || body[0] == 'P') && cstringOnly(body[1:])
	case msgExecute:
		rest, ok := skipCString(body, 1)
		return ok && len(rest) == 4
	case msgSync, msgFlush, msgTerminate, msgCopyDone:
		return len(body) == 0
	case msgCopyFail:
		return cstringOnly(body)
	case msgCall:
		_, ok := scanCall(body, nil)
		return ok
	}
	return false
}

func validateServer(kind byte, body []byte) bool {
	switch kind {
	case srvRowDescription:
		return validRowDescription(body)
	case srvError, srvNotice:
		return validFields(body)
	case srvCommandComplete:
		return cstringOnly(body)
	case srvParameterStatus:
		rest, ok := skipCString(body, 2)
		return ok && len(rest) == 0
	case srvNotification:
		if len(body) < 4 {
			return false
		}
		rest, ok := skipCString(body[4:], 2)
		return ok && len(rest) == 0
	case srvReady:
		return len(body) == 1 && (body[0] == 'I' || body[0] == 'T' || body[0] == 'E')
	case srvCopyIn, srvCopyOut:
		return len(body) >= 3 && body[0] <= 1 && len(body) == 3+2*int(binary.BigEndian.Uint16(body[1:]))
	case srvParameters:
		return len(body) >= 2 && len(body) == 2+4*int(binary.BigEndian.Uint16(body))
	case srvParseComplete, srvBindComplete, srvCloseComplete, srvEmptyQuery, srvNoData, srvSuspended, msgCopyDone:
		return len(body) == 0
	}
	return false
}

// cstringOnly reports whether b is one string with its NUL and nothing else.
func cstringOnly(b []byte) bool {
	return len(b) > 0 && bytes.IndexByte(b, 0) == len(b)-1
}

// skipCString skips n NUL-terminated strings.
func skipCString(b []byte, n int) ([]byte, bool) {
	for ; n > 0; n-- {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return nil, false
		}
		b = b[i+1:]
	}
	return b, true
}

// fieldTail is what follows a column's name in a RowDescription.
const fieldTail = 18

func validRowDescription(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for ; n > 0; n-- {
		rest, ok := skipCString(b, 1)
		if !ok || len(rest) < fieldTail {
			return false
		}
		b = rest[fieldTail:]
	}
	return len(b) == 0
}

// validFields checks the field list of ErrorResponse and NoticeResponse.
func validFields(b []byte) bool {
	for len(b) > 0 && b[0] != 0 {
		rest, ok := skipCString(b[1:], 1)
		if !ok {
			return false
		}
		b = rest
	}
	return len(b) == 1
}

// call is a FunctionCall, walked in place: v2 cannot decode a NULL argument.
type call struct {
	function uint32
	params   []string // as recorded
	hidden   []flow.Hidden
	result   int16 // format of the result
}

// scanCall reads the body of a FunctionCall; hide is that of paramRecorder.
func scanCall(b []byte, hide func([]byte) string) (call, bool) {
	var c call
	if len(b) < 6 {
		return c, false
	}
	c.function = binary.BigEndian.Uint32(b)
	formats := int(binary.BigEndian.Uint16(b[4:]))
	b = b[6:]
	if len(b) < 2*formats+2 {
		return c, false
	}
	codes := b[:2*formats]
	args := int(binary.BigEndian.Uint16(b[2*formats:]))
	b = b[2*formats+2:]
	if formats > 1 && formats != args {
		return c, false
	}
	rec := paramRecorder{hide: hide}
	for i := range args {
		if len(b) < 4 {
			return c, false
		}
		n := int64(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if n < -1 || n > int64(len(b)) {
			return c, false
		}
		rec.begin(n, formatOf(codes, i))
		if n > 0 {
			rec.write(b[:n])
			b = b[n:]
		}
		rec.end()
	}
	if len(b) != 2 {
		return c, false
	}
	c.hidden = rec.hidden
	c.params, c.result = rec.done(), int16(binary.BigEndian.Uint16(b))
	return c, true
}

// formatOf is the format of value i under the rule of Bind and FunctionCall: no
// code means text, one code stands for all.
func formatOf(codes []byte, i int) int16 {
	switch len(codes) {
	case 0:
		return 0
	case 2:
		return int16(binary.BigEndian.Uint16(codes))
	}
	if 2*i+2 > len(codes) {
		return 0
	}
	return int16(binary.BigEndian.Uint16(codes[2*i:]))
}
