// Package auditlog is the format of Weir's audit log: the events, the records
// that hold them on disk, a reader and a verifier. It imports the standard
// library only and needs no agent, so that an auditor's tool can be built from
// it alone. It never writes to a log.
//
// # The log on disk
//
// A log is a directory of segments, numbered from 1 without a hole, and one
// signed checkpoint. A segment is a Header and then records:
//
//	header  magic[8] cause[1] flags[1] zero[2] segment[8] first-seq[8] created[8]
//	        previous-chain[32] node-length[1] node chain[32]
//	record  kind[1] length[3] payload[length] chain[32]
//
// Numbers are big-endian. The chain value of a header is the SHA-256 of all that
// stands before it in the header; that of a record is the SHA-256 of the chain
// value before it, the record's first four bytes and the payload. A header
// repeats the last chain value of the segment before it, so the chain runs
// through the whole log: no byte can change, go, come or move without it showing
// at that very place.
//
// Whoever can write to the directory can compute a chain, but not sign it. An
// Ed25519 key signs the chain's value (a Checkpoint) at the start of every
// segment, at least every second while there is something new, and at the end;
// into the log, and into a file beside it, so that cutting off what a
// signature has covered shows too (the two are signed as what they are: one from
// inside does not pass for the file). What was written since the last checkpoint
// (a second at most) is covered by the chain alone. Putting back an older copy
// of the whole directory can only be found with a checkpoint kept elsewhere.
package auditlog
