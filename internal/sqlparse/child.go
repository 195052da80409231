package sqlparse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/pganalyze/pg_query_go/v6/parser"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// childName is argv[0] of a parser child: nothing else makes the binary one.
const childName = "weir-sql-parser"

// Exit codes of a child, for the log.
const (
	exitDone    = 0
	exitSandbox = 3
	exitPipe    = 4
)

// childHeap makes the child's garbage collector work hard beyond it, bytes.
const childHeap = 48 << 20

// ChildMain turns the process into a parser child and does not return, if it was
// started as one; otherwise it does nothing. main and every TestMain of a binary
// that uses a Pool calls it first.
func ChildMain() {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return
	}
	os.Exit(child())
}

func child() int {
	runtime.LockOSThread()
	debug.SetMemoryLimit(childHeap)
	if err := seal(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return exitSandbox
	}
	if err := serve(rawFD(0), rawFD(1)); err != nil {
		return exitPipe
	}
	return exitDone
}

// serve answers requests until the parent closes the pipe.
func serve(in io.Reader, out io.Writer) error {
	if err := reply(out, frameReady, nil); err != nil {
		return err
	}
	var text []byte
	for {
		var h [4]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		head := binary.BigEndian.Uint32(h[:])
		n := int(head &^ requestKinds)
		if n > max(sqlmeta.MaxText, MaxTree) {
			return errors.New("request too long")
		}
		if cap(text) < n {
			text = make([]byte, n)
		}
		text = text[:n]
		if _, err := io.ReadFull(in, text); err != nil {
			return err
		}
		if err := answer(out, text, head&requestKinds); err != nil {
			return err
		}
	}
}

func answer(out io.Writer, request []byte, what uint32) error {
	var result []byte
	var text string
	var err error
	kind, limit := byte(frameTree), MaxTree
	switch what {
	case plpgsqlRequest:
		text, err = parser.ParsePlPgSqlToJSON(string(request))
		result, kind = []byte(text), frameJSON
	case deparseRequest:
		text, err = parser.DeparseFromProtobuf(request)
		result, kind, limit = []byte(text), frameText, sqlmeta.MaxText
	default:
		result, err = parser.ParseToProtobuf(string(request))
	}
	var pgErr *parser.Error
	switch {
	case errors.As(err, &pgErr):
		return reply(out, frameError, syntaxError(pgErr))
	case err != nil:
		return err
	case len(result) > limit:
		return reply(out, frameTooBig, nil)
	}
	return reply(out, kind, result)
}

func syntaxError(e *parser.Error) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(max(e.Cursorpos, 0)))
	msg := strings.ToValidUTF8(e.Message, "\uFFFD")
	if len(msg) > maxMessage {
		cut := maxMessage
		for !utf8.RuneStart(msg[cut]) {
			cut--
		}
		msg = msg[:cut] + "..."
	}
	return append(b, msg...)
}

func reply(out io.Writer, kind byte, payload []byte) error {
	var h [frameHeader]byte
	putHeader(&h, kind, len(payload))
	// One write for a small answer: the parent wakes once.
	if len(payload) <= 64<<10 {
		_, err := out.Write(bytes.Join([][]byte{h[:], payload}, nil))
		return err
	}
	if _, err := out.Write(h[:]); err != nil {
		return err
	}
	_, err := out.Write(payload)
	return err
}

// rawFD reads and writes a blocking descriptor without the runtime's poller,
// whose system calls the child need not have.
type rawFD int

func (fd rawFD) Read(b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (fd rawFD) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := syscall.Write(int(fd), b[done:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
