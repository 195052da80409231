// Package postgres is the engine of the PostgreSQL frontend/backend protocol,
// version 3.0 (PostgreSQL manual, chapter 55): it greets a client in the server's
// place, asks the gate about every statement, forwards what is allowed, masks the
// results and reports how each action ended.
//
// The greeting (Handler) is blocking code with a deadline. Behind it stands the
// Engine, which does no I/O: bytes of either side go in, bytes, questions and
// outcomes come out. Both sides are hostile: each has a closed set of messages for
// each state, and anything else ends the flow.
//
// How actions map to the server's own log (log_statement = all): every statement of
// a simple query is an action, and so is every Execute message, one that continues a
// suspended portal too (the server logs it as "execute fetch from"). Parse, Bind
// and Describe are none; a refused Parse is recorded as a denial.
//
// A session's application_name begins as "weir:<flow> <the client's own>". A client
// may set another one that does not begin with "weir:"; the process id in flow.open
// still ties the server's log to the flow.
//
// The package never dials, never asks a client for a password and never writes
// evidence; it knows policy only through the gate.
package postgres
