package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Message types of the client (PostgreSQL manual, 55.7).
const (
	msgQuery     = 'Q'
	msgParse     = 'P'
	msgBind      = 'B'
	msgDescribe  = 'D'
	msgExecute   = 'E'
	msgClose     = 'C'
	msgSync      = 'S'
	msgFlush     = 'H'
	msgCall      = 'F'
	msgCopyData  = 'd' // of both sides
	msgCopyDone  = 'c' // of both sides
	msgCopyFail  = 'f'
	msgTerminate = 'X'
)

// Message types of the server that the engine acts on.
const (
	srvParseComplete   = '1'
	srvBindComplete    = '2'
	srvCloseComplete   = '3'
	srvNotification    = 'A'
	srvCommandComplete = 'C'
	srvDataRow         = 'D'
	srvError           = 'E'
	srvCopyIn          = 'G'
	srvCopyOut         = 'H'
	srvEmptyQuery      = 'I'
	srvNotice          = 'N'
	srvParameterStatus = 'S'
	srvRowDescription  = 'T'
	srvCallResponse    = 'V'
	srvReady           = 'Z'
	srvNoData          = 'n'
	srvSuspended       = 's'
	srvParameters      = 't'
)

// headerLen is the type byte and the length that counts itself.
const headerLen = 5

// header is a frame header that may arrive in pieces.
type header struct {
	b [headerLen]byte
	n int
}

// fill takes bytes until the header is whole and returns how many it took.
func (h *header) fill(b []byte) int {
	k := copy(h.b[h.n:], b)
	h.n += k
	return k
}

func (h *header) whole() bool { return h.n == headerLen }
func (h *header) kind() byte  { return h.b[0] }

// body is the length of the body, computed in 64 bits; negative when the declared
// length does not even hold itself.
func (h *header) body() int64 { return int64(binary.BigEndian.Uint32(h.b[1:])) - 4 }

// appendFrame appends a frame of the given type around body.
func appendFrame(dst []byte, kind byte, body ...byte) []byte {
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}

// beginFrame appends a frame header whose length endFrame fills in.
func beginFrame(dst []byte, kind byte) ([]byte, int) {
	return append(dst, kind, 0, 0, 0, 0), len(dst) + 1
}

// endFrame fills in the length of the frame begun at mark.
func endFrame(dst []byte, mark int) []byte {
	binary.BigEndian.PutUint32(dst[mark:], uint32(len(dst)-mark))
	return dst
}

var errMalformed = errors.New("malformed message")

// checkClientHeader says whether a client may send such a frame at all.
func checkClientHeader(kind byte, body int64) error {
	limit := int64(maxSmall)
	switch kind {
	case msgQuery, msgParse, msgBind, msgCall, msgCopyData:
		limit = maxLarge
	case msgDescribe, msgExecute, msgClose, msgSync, msgFlush, msgCopyDone, msgCopyFail, msgTerminate:
	default:
		return fmt.Errorf("message type %q is not one that a client may send here", kind)
	}
	switch {
	case body < 0:
		return fmt.Errorf("message type %q with an invalid length", kind)
	case body+4 > limit:
		return fmt.Errorf("message type %q of %d bytes is longer than the server would take (%d)", kind, body+4, limit)
	}
	return nil
}

// serverLimit is how long the body of a server's message may be; 0 for a type that
// it may not send here, negative for one that is streamed.
func serverLimit(kind byte) int64 {
	switch kind {
	case srvDataRow, msgCopyData, srvCallResponse, srvError, srvNotice, srvNotification:
		return -1
	case srvRowDescription, srvParameters:
		return maxControl
	case srvParameterStatus:
		return maxStatus
	case srvCopyIn, srvCopyOut:
		return 3 + 2*1664
	case srvParseComplete, srvBindComplete, srvCloseComplete, srvCommandComplete, srvEmptyQuery,
		srvReady, srvNoData, srvSuspended, msgCopyDone:
		return maxTag
	}
	return 0
}
