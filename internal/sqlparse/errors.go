package sqlparse

import (
	"errors"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Reasons why a statement could not be read. Each makes it unknown.
var (
	ErrTooLong    = sqlmeta.ErrTooLong
	ErrTooDeep    = sqlmeta.ErrTooDeep
	ErrNotText    = sqlmeta.ErrNotText
	ErrMisread    = sqlmeta.ErrMisread
	ErrTooLarge   = errors.New("the statement's parse tree is too large to look at")
	ErrParserDied = errors.New("the SQL parser process died of the statement")
	ErrTimeout    = errors.New("the SQL parser took too long over the statement")
	ErrBusy       = errors.New("no SQL parser process is free")
	ErrClosed     = errors.New("the SQL parser is shut down")
)

// SyntaxError is what the PostgreSQL grammar says about the text. Message is the
// parser's own, so it quotes one token of the text: fit for the client who sent
// it, not for a log.
type SyntaxError struct {
	Message string
	Cursor  int // position in the text, in characters, from 1; 0 when there is none
}

func (e *SyntaxError) Error() string { return "syntax error" }

// SyntaxError is the message and the position, for packages that do not import
// this one.
func (e *SyntaxError) SyntaxError() (message string, position int) { return e.Message, e.Cursor }
