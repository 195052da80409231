// Package sqlparse runs PostgreSQL's own grammar on hostile text without letting
// it near the agent. libpg_query is C and kills its process on some inputs
// (research: a 45 KB statement does), so it runs only in child processes: the same
// binary again, sealed by seccomp, without network, files, environment or
// privileges, with a memory limit, and killed when it takes too long.
//
// The package owns those children and the cache of analyses in front of them. A
// statement that a child dies of is unreadable, which the caller must treat as
// unknown and refuse; it is never passed on. Nothing here logs statement text.
package sqlparse
