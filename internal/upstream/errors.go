package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
)

// Kind says at which step a backend failed.
type Kind int

// Kinds of errors.
const (
	Unreachable Kind = iota // no connection, or it broke before the login was decided
	TLSFailed               // no TLS where it is wanted, or a certificate that does not hold
	Refused                 // the server refused the login
	NoPassword              // the secret could not be had, or the server wants one and there is none
)

// Error is why there is no session at the backend. Error() may be shown to the
// user: it names the backend, never a secret. The cause may hold more and is for
// the operator.
type Error struct {
	Kind     Kind
	Severity string // of the server's error: FATAL, ...; "" when it sent none
	Code     string // SQLSTATE of the server's error; "" when it sent none
	text     string
	cause    error
}

func (e *Error) Error() string { return e.text }
func (e *Error) Unwrap() error { return e.cause }

// SQLState is the server's SQLSTATE, "" when it sent none.
func (e *Error) SQLState() string { return e.Code }

func (e *Error) reason() flow.Reason {
	if e.Kind == Refused || e.Kind == NoPassword {
		return flow.ReasonUpstreamLogin
	}
	return flow.ReasonUnreachable
}

// fail logs the cause for the operator and makes the flow's end of it.
func (d *Dialer) fail(f *flow.Flow, e *Error) error {
	d.Log.Warn("no session at the backend", "flow", f.ID, "backend", f.Backend, "problem", e.text, "cause", e.cause)
	return &session.End{Reason: e.reason(), Err: e}
}

func unreachable(b *backend, cause error) *Error {
	return &Error{Kind: Unreachable, cause: cause,
		text: fmt.Sprintf("backend %q cannot be reached: %s; tell whoever runs it", b.name, networkReason(cause))}
}

// networkReason puts a network error into words without addresses.
func networkReason(err error) string {
	var errno syscall.Errno
	var ne net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.Canceled):
		return "the attempt was given up"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	}
	return "the connection failed"
}

// signInError sorts what pgconn says. Password is looked for in the server's
// words, which are the server's to choose.
func signInError(b *backend, login string, password []byte, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return serverError(b, login, password, pg)
	}
	var ne net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) ||
		errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) {
		return unreachable(b, err)
	}
	// What is left: the server did not prove that it knows the password (SCRAM),
	// wants a method that is not allowed, or does not speak the protocol.
	return &Error{Kind: Refused, cause: scrubbed(err, password),
		text: fmt.Sprintf("the sign-in at backend %q as %q did not go by the rules of the protocol; tell whoever keeps weir's configuration", b.name, login)}
}

func serverError(b *backend, login string, password []byte, pg *pgconn.PgError) *Error {
	e := &Error{Kind: Refused, Severity: word(pg.SeverityUnlocalized, pg.Severity), Code: word(pg.Code, ""), cause: scrubbed(pg, password)}
	said := strings.TrimSpace(e.Severity + " " + e.Code)
	if m := safeMessage(pg.Message, password); m != "" {
		said += ": " + m
	}
	switch {
	// Class 53 insufficient resources, 57P01-57P03 shutting down or starting up
	// (PostgreSQL manual, appendix A): nothing is wrong with the login.
	case strings.HasPrefix(e.Code, "53"), strings.HasPrefix(e.Code, "57P0"):
		e.Kind = Unreachable
		e.text = fmt.Sprintf("backend %q takes no connection just now (%s)", b.name, said)
	default:
		e.text = fmt.Sprintf("backend %q refused the sign-in as %q (%s); tell whoever keeps weir's configuration", b.name, login, said)
	}
	return e
}

// maxServerMessage bounds what is repeated of a server's message, bytes.
const maxServerMessage = 200

// safeMessage is a server's message as far as it may be repeated: printable, one
// line, short, without the password; else "".
func safeMessage(m string, password []byte) string {
	if len(password) > 0 && strings.Contains(m, string(password)) {
		return ""
	}
	m = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(m, "?"))
	if len(m) > maxServerMessage {
		m = strings.ToValidUTF8(m[:maxServerMessage], "") + "..."
	}
	return m
}

// word is the first of a and b that looks like a severity or SQLSTATE: capitals
// and digits, at most ten.
func word(a, b string) string {
	for _, s := range []string{a, b} {
		ok := s != "" && len(s) <= 10
		for i := 0; ok && i < len(s); i++ {
			ok = s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9'
		}
		if ok {
			return s
		}
	}
	return ""
}

// scrubbed is err, or nothing of it when it repeats the password.
func scrubbed(err error, password []byte) error {
	if len(password) > 0 && strings.Contains(err.Error(), string(password)) {
		return errors.New("(the server's message repeats a secret and is left out)")
	}
	return err
}
