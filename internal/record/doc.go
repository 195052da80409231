// Package record keeps recordings of sessions: what people sent and saw, as JSON
// lines for protocols of statements and as asciicast v2 for terminals.
//
// A recording is one file below recordings/ of the state directory, which only
// grows: a sequence of chunks, each of them zstd (RFC 8878) and, when the
// configuration names recipients, age (age-encryption.org/v1) around it. A chunk is
// on disk before its place and SHA-256 go into the audit log. What a chunk holds is
// in memory until then: at most maxChunk and one entry, for at most chunkAge. So an
// agent that is killed loses that much of a recording, and none of the audit log.
//
// What stands behind a mask is written only into recordings that are encrypted.
package record
