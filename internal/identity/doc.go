// Package identity answers one question: which verified person or workload is
// this process? It verifies OIDC tokens, binds them to logins (audit sessions)
// and to the cgroups of weir exec, and owns those cgroups and the bindings on
// disk. It also signs people in, at a terminal and for a web page, and verifies
// the tokens by which approvers prove who they are. Who calls is learnt from the
// kernel (SO_PEERCRED, pidfds, /proc), never from what the caller says. It never
// decides what a principal may do, and never stores, logs or repeats a token.
package identity
