// Package auditlog is the format of Weir's audit log: the events, the records
// that hold them on disk, a reader and a verifier. It imports the standard
// library only and needs no agent, so that an auditor's tool can be built from
// it alone. It never writes to a log.
package auditlog
