package sqlparse

import (
	"encoding/binary"
	"io"
)

// Kinds of frames from child to parent. A frame is one kind byte, the length of
// the payload (4 bytes, big endian) and the payload. A request has no kind byte: the
// length's highest bit says that the text is a CREATE FUNCTION in PL/pgSQL, the next one
// that it is no text but a ParseResult whose text is wanted.
const (
	frameReady  = 'R' // the sandbox is shut; sent once
	frameTree   = 'T' // protobuf of a ParseResult
	frameJSON   = 'J' // PL/pgSQL as JSON
	frameText   = 'S' // SQL text of a tree
	frameError  = 'E' // cursor position (4 bytes), then the parser's message
	frameTooBig = 'B' // the tree is larger than MaxTree, or the text than MaxText; no payload
)

const frameHeader = 5

const (
	plpgsqlRequest = 1 << 31
	deparseRequest = 1 << 30
	requestKinds   = plpgsqlRequest | deparseRequest
)

// maxMessage bounds the parser's error message, bytes. PostgreSQL quotes the
// offending token in it, which may be as long as the statement.
const maxMessage = 512

func putHeader(h *[frameHeader]byte, kind byte, n int) {
	h[0] = kind
	binary.BigEndian.PutUint32(h[1:], uint32(n))
}

func readHeader(r io.Reader) (kind byte, n int, err error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, err
	}
	return h[0], int(binary.BigEndian.Uint32(h[1:])), nil
}
