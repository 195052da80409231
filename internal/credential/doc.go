// Package credential turns secret references of the configuration into secrets
// and knows which credentials entry is meant for whom. References are
//
//	file:/path            the file's content
//	env:NAME              a variable of the agent's environment
//	exec:COMMAND ARG...   what a command prints (no shell; quotes as in sh)
//	age:/path             a file encrypted to the agent's age identity
//	bao:PATH#FIELD        a field of a secret in OpenBao or Vault (KV v1, v2, dynamic)
//
// One line break at the end of a secret is not part of it. The package owns the
// short cache of what is costly to fetch and wipes it on expiry. It must never
// put a secret, or the output of whatever failed to give one, into an error or a
// log line; Secret prints as "***" however it is printed.
package credential
