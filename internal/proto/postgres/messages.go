package postgres

import (
	"github.com/jackc/pgproto3/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
)

// SQLSTATE codes that the engine gives (PostgreSQL manual, appendix A).
const (
	codeNoStatement   = "26000"
	codeProtocol      = "08P01"
	codeConnect       = "08001"
	codeNotSupported  = "0A000"
	codeParameter     = "22023"
	codeAuthorization = "28000"
	codeDenied        = "42501"
	codeSyntax        = "42601"
	codeTooMuch       = "54000"
	codeShutdown      = "57P01"
	codeCancelled     = "57014"
	codeSystem        = "58000"
)

// appendError appends an ErrorResponse. The text is the engine's own.
func appendError(dst []byte, severity, code, message string, position int) []byte {
	m := pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity,
		Code: code, Message: message, Position: int32(position)}
	out, err := m.Encode(dst)
	if err != nil { // longer than a message may be: not with texts of ours
		return dst
	}
	return out
}

func appendReady(dst []byte, status byte) []byte { return appendFrame(dst, srvReady, status) }

// codeOf is the SQLSTATE for a flow that is refused or cut for a reason.
func codeOf(r flow.Reason) string {
	switch r {
	case flow.ReasonNoIdentity, flow.ReasonExpired, flow.ReasonRevoked, flow.ReasonUpstreamLogin:
		return codeAuthorization
	case flow.ReasonDenied:
		return codeDenied
	case flow.ReasonDrained:
		return codeShutdown
	case flow.ReasonUnreachable:
		return codeConnect
	case flow.ReasonProtocol:
		return codeProtocol
	}
	return codeSystem
}

// protocolError ends a flow because of what one of the sides sent.
func protocolError(err error) *session.End {
	return &session.End{Reason: flow.ReasonProtocol, Err: err}
}

// refusedText is sent in place of a refused statement where the open transaction
// has to fail: the server cannot parse it in any state.
const refusedText = "weir: refused"

func appendQuery(dst []byte, sql string) []byte {
	out, err := (&pgproto3.Query{String: sql}).Encode(dst)
	if err != nil {
		return dst
	}
	return out
}

func appendParse(dst []byte, name, sql string) []byte {
	out, err := (&pgproto3.Parse{Name: name, Query: sql}).Encode(dst)
	if err != nil {
		return dst
	}
	return out
}

func appendDescribePortal(dst []byte, name string) []byte {
	out, err := (&pgproto3.Describe{ObjectType: 'P', Name: name}).Encode(dst)
	if err != nil {
		return dst
	}
	return out
}
