// Package policy decides. It is pure: policy files in, an immutable Set out;
// principal, flow and action in, a verdict with its obligations and its
// explanation out. It opens no file, keeps no clock and logs nothing (package
// policystore, below it, reads and watches the files).
//
// # Semantics
//
// An action is decided as a whole: every one of its accesses (a verb on a
// resource) must be allowed. Rules have no order: deny beats approve beats
// allow, and what no rule allows is denied. When several approve rules match,
// all of them must be satisfied.
//
//   - groups, users, kinds: all that are given must match; none given: everybody.
//     A user name with an @ is compared without regard to the case of ASCII
//     letters, groups exactly.
//   - actions: left out means every known verb, but never "unknown". What could
//     not be read is allowed only by a rule that names unknown.
//   - resources: a pattern speaks only for accesses whose resource has its form
//     (database:, function:, role:, setting:, channel:, login:, schema.relation,
//     /path, namespace/resource, host:port, command line). An access of another form
//     is not restricted by it: `actions: [connect, select]` with
//     `resources: ["shop.*"]` allows connect. `weir policy check` warns where
//     that leaves any other verb open.
//   - when: a CEL condition, evaluated for each access: action.verb,
//     action.resource and action.has_where are those of the access at hand, the
//     rest are the whole action's. It is typed, so that a misspelt field fails
//     when the file is loaded, and its cost is bounded before and while it runs.
//     A condition that fails to evaluate (a claim that is not there, an
//     executable that is not known, text longer than the recorded part) denies
//     the action, whatever other rules say.
//
// # Patterns
//
// `*` matches any run within one part, `**` any run over parts, `\*` a star.
// Parts end at dots in SQL names (not within double quotes), at slashes in paths
// and Kubernetes names; a host is one part and its port another (a pattern
// without a port is for every port); a command line is one part up to a shell
// operator. Names of databases, roles and logins are one part.
//
// An SQL resource may itself reach over many objects ("shop.*": DROP SCHEMA). A
// rule that allows must cover all of it; one that denies or asks for approval
// matches when they have anything in common.
package policy
