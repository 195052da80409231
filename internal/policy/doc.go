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
// # Columns
//
// action.columns_read, columns_written and columns_tested hold what a statement
// touches as schema.table.column, behind views and functions as far as their
// definitions can be read. Least privilege by column is a condition on them:
//
//	when: 'action.columns_read.all(c, c in ["shop.orders.id", "shop.orders.total"])'
//
// A whole row is schema.table.*, so such a list refuses it. The lists are empty for
// what reads no table, and at backends that do not speak SQL: all() holds for an
// empty list, so `actions` and `resources` have to say what the rule is about.
// action.languages are those of the functions called that are not the server's own,
// action.security_definer is set when one of them runs with its owner's rights.
//
// # Masks
//
// predicates says what becomes of a statement in which a masked column decides
// something (WHERE, JOIN, ORDER BY, GROUP BY, CASE, a calculation that can fail)
// rather than only being shown: enough such tests find out what the mask hides.
//
//   - deny, the default: only comparing the column, as it is, with a literal or a
//     bind parameter passes, and each value counts against a budget
//     (DefaultEquality in DefaultPer; {equality: N, per: D} sets another). Whatever
//     else tests the column is refused.
//   - {budget: N, per: D}: any test whose result says a bounded amount passes
//     (comparisons, patterns, orders, groups), and each value that it is held
//     against counts one. What has no bound is refused: holding the column against
//     other data (a join, a subquery), letting it decide how many rows there are.
//   - allow: nothing is refused or counted. Whoever has time can find out all that
//     the mask hides.
//
// A budget is a person's, for one mask of one policy, over all of their connections
// and restarts of the agent on a node: whatever acts for a person spends theirs. A
// test is given back Per after it was made.
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
