// Package pglog reads PostgreSQL's own log and compares the statements in it with the
// actions of the audit log. The server knows nothing of Weir: a statement that only it
// knows of went past Weir, or its record is lost.
//
// The server has to log its statements: log_statement = all, or
// log_min_duration_statement = 0 (PostgreSQL manual, 20.8), in English (lc_messages = C)
// and UTF-8. What is compared and what cannot be seen is in docs/COMPLETENESS.md.
//
// Both logs are read once, side by side, in the order of time; in memory is what waits
// for its counterpart. The server's log is somebody else's: records are bounded, and what
// cannot be read is counted, never skipped in silence.
package pglog
