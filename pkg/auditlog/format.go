package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of the format.
const (
	// MaxPayload is the longest payload of a record, bytes. A statement's text is
	// at most 64 KiB (flow.MaxRecordedText), six times that when all of it is
	// escaped in JSON; the rest is for parameters.
	MaxPayload = 1 << 20
	// MaxNode is the longest name of a node, bytes (RFC 1035: 253; one byte holds
	// the length).
	MaxNode = 255

	recordHead  = 4
	recordExtra = recordHead + sha256.Size // bytes of a record besides its payload
	// MinRecord is the length of the shortest record, bytes.
	MinRecord = recordExtra + 1

	headerFixed  = 69 // bytes of a header before the node's name
	maxHeaderLen = headerFixed + MaxNode + sha256.Size
)

// magic starts every segment; its last byte is the version of the format.
const magic = "WEIRLOG\x01"

// Names in the spool directory and in the state directory.
const (
	CheckpointFile = "checkpoint"
	segmentSuffix  = ".segment"
	segmentDigits  = 12
)

// SpoolDir is where a log lives in a state directory.
func SpoolDir(stateDir string) string { return filepath.Join(stateDir, "log", "spool") }

// PublicKeyFile holds the key that a log's checkpoints are verified with.
func PublicKeyFile(stateDir string) string { return filepath.Join(stateDir, "keys", "log.pub") }

// Chain is a value of the hash chain.
type Chain [sha256.Size]byte

// Position is a place between two records of a log: right behind the record that
// gave the chain its value. The zero Position is the start of the log.
type Position struct {
	Segment uint64
	Offset  int64  // bytes from the start of the segment
	Seq     uint64 // of the last event before it
	Chain   Chain
}

// Before reports whether p comes before q.
func (p Position) Before(q Position) bool {
	if p.Segment != q.Segment {
		return p.Segment < q.Segment
	}
	return p.Offset < q.Offset
}

// Cause says why a segment was begun.
type Cause byte

// The causes of a segment.
const (
	CauseFirst   Cause = 1 // the log's first one
	CauseRotate  Cause = 2 // the one before was full
	CauseStart   Cause = 3 // the agent started
	CauseFailure Cause = 4 // the one before could not be written any more
)

func (c Cause) String() string {
	switch c {
	case CauseFirst:
		return "first"
	case CauseRotate:
		return "rotate"
	case CauseStart:
		return "start"
	case CauseFailure:
		return "failure"
	}
	return "cause " + strconv.Itoa(int(c))
}

// flagDamaged marks a segment whose writer found the log before it damaged.
const flagDamaged = 1

// Header begins a segment.
type Header struct {
	Cause   Cause
	Damaged bool // the agent found the log before this segment cut or altered
	Segment uint64
	First   uint64    // seq of its first event
	Created time.Time // UTC, nanoseconds
	Prev    Chain     // last chain value of the segment before
	Node    string
	Chain   Chain // of the header itself
}

// AppendHeader appends an encoded header to dst and returns its chain value.
func AppendHeader(dst []byte, h Header) ([]byte, Chain, error) {
	if len(h.Node) > MaxNode || h.Node == "" {
		return dst, Chain{}, fmt.Errorf("the node's name must have 1 to %d bytes", MaxNode)
	}
	start := len(dst)
	var flags byte
	if h.Damaged {
		flags |= flagDamaged
	}
	dst = append(dst, magic...)
	dst = append(dst, byte(h.Cause), flags, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, h.Segment)
	dst = binary.BigEndian.AppendUint64(dst, h.First)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Created.UnixNano()))
	dst = append(dst, h.Prev[:]...)
	dst = append(dst, byte(len(h.Node)))
	dst = append(dst, h.Node...)
	sum := Chain(sha256.Sum256(dst[start:]))
	return append(dst, sum[:]...), sum, nil
}

// parseHeader reads a header at the start of b and returns its length. Too few
// bytes give errShort.
func parseHeader(b []byte) (Header, int, error) {
	var h Header
	if len(b) < headerFixed {
		if !bytes.HasPrefix([]byte(magic), b[:min(len(b), len(magic))]) {
			return h, 0, errors.New("this is no segment of a weir log")
		}
		return h, 0, errShort
	}
	if string(b[:len(magic)-1]) != magic[:len(magic)-1] {
		return h, 0, errors.New("this is no segment of a weir log")
	}
	if b[7] != magic[7] {
		return h, 0, fmt.Errorf("version %d of the log's format is not known here; use a newer weir", b[7])
	}
	size := headerFixed + int(b[68]) + sha256.Size
	if len(b) < size {
		return h, 0, errShort
	}
	copy(h.Chain[:], b[size-sha256.Size:size])
	if h.Chain != sha256.Sum256(b[:size-sha256.Size]) {
		return h, 0, errors.New("the header does not have the hash that it states")
	}
	h.Cause, h.Damaged = Cause(b[8]), b[9] == flagDamaged
	if h.Cause < CauseFirst || h.Cause > CauseFailure || b[9] > flagDamaged || b[10] != 0 || b[11] != 0 || b[68] == 0 {
		return h, 0, errors.New("the header is malformed")
	}
	h.Segment = binary.BigEndian.Uint64(b[12:])
	h.First = binary.BigEndian.Uint64(b[20:])
	if h.Segment == 0 || h.First == 0 {
		return h, 0, errors.New("the header is malformed")
	}
	h.Created = time.Unix(0, int64(binary.BigEndian.Uint64(b[28:]))).UTC()
	copy(h.Prev[:], b[36:])
	h.Node = string(b[headerFixed : size-sha256.Size])
	return h, size, nil
}

// RecordKind says what a record holds.
type RecordKind byte

// The kinds of records.
const (
	// RecordEvent holds the JSON of an Event.
	RecordEvent RecordKind = 1
	// RecordCheckpoint holds a signed Checkpoint of the position before it.
	RecordCheckpoint RecordKind = 2
	// RecordCarry repeats, at the start of a segment, an event of an earlier one
	// whose flow or action is not over: replay after a crash needs the newest
	// segment only. It is no event of its own.
	RecordCarry RecordKind = 3
)

// BeginRecord appends the head of a record to dst, which must end with the chain
// value that the record follows: behind a header or another record it does. The
// payload is appended next, then SealRecord called with the same mark.
func BeginRecord(dst []byte, kind RecordKind) (b []byte, mark int) {
	return append(dst, byte(kind), 0, 0, 0), len(dst)
}

// SealRecord completes the record begun at mark with its length and its chain
// value, which it also returns.
func SealRecord(b []byte, mark int) ([]byte, Chain, error) {
	n := len(b) - mark - recordHead
	if n < 1 || n > MaxPayload {
		return b[:mark], Chain{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, n, MaxPayload)
	}
	b[mark+1], b[mark+2], b[mark+3] = byte(n>>16), byte(n>>8), byte(n)
	sum := Chain(sha256.Sum256(b[mark-sha256.Size:]))
	return append(b, sum[:]...), sum, nil
}

// ErrTooLong is the error of an event that is longer than MaxPayload.
var ErrTooLong = errors.New("the event is too long for a record")

// parseHead reads the first four bytes of a record.
func parseHead(b []byte) (RecordKind, int, error) {
	kind := RecordKind(b[0])
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if kind < RecordEvent || kind > RecordCarry {
		return 0, 0, fmt.Errorf("there is no kind %d of record", b[0])
	}
	if n < 1 || n > MaxPayload {
		return 0, 0, fmt.Errorf("a record of %d bytes is not possible", n)
	}
	return kind, n, nil
}

// SegmentName is the file name of a segment.
func SegmentName(n uint64) string { return fmt.Sprintf("%0*d%s", segmentDigits, n, segmentSuffix) }

// Segments lists the numbers of the segments in dir, in order.
func Segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the log: %w", err)
	}
	var list []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || SegmentName(n) != e.Name() {
			return nil, fmt.Errorf("%s is no name of a segment", filepath.Join(dir, e.Name()))
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return list, nil
}

// seqOf reads the sequence number out of an event's JSON without decoding all of
// it; the log's own writer puts it second.
func seqOf(payload []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(payload, []byte(`{"v":`))
	if !ok {
		return 0, false
	}
	_, rest, ok = bytes.Cut(rest, []byte(`,"seq":`))
	if !ok {
		return 0, false
	}
	digits, _, ok := bytes.Cut(rest, []byte{','})
	if !ok || len(digits) == 0 || len(digits) > 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	return n, err == nil
}

// SplitRecord returns the payload, the whole length and the chain value of the
// record at the start of b, which a writer has just made; it checks nothing.
func SplitRecord(b []byte) (payload []byte, size int, c Chain) {
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	copy(c[:], b[recordHead+n:])
	return b[recordHead : recordHead+n : recordHead+n], n + recordExtra, c
}
