package policy

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// Facts is a set of what a decision can rest on, apart from the policy, the flow's
// backend, protocol and names, and what the provider says of the principal (user,
// groups, kind, actor). Whoever keeps decisions, or takes them again from a record,
// has to know which.
type Facts uint16

// The facts. All but the first are there because conditions can ask for them.
const (
	FactAccesses  Facts = 1 << iota // verbs and resources; every decision rests on them
	FactWhere                       // action.has_where
	FactText                        // action.text
	FactParams                      // action.params
	FactSize                        // action.size
	FactFunctions                   // action.functions, languages, security_definer
	FactColumns                     // action.columns_*
	FactClaims                      // principal.claims
	FactProcess                     // process, but argv0
	FactArgv0                       // process.argv0
	FactStart                       // flow.start
	FactNow                         // now

	allFacts = FactNow<<1 - 1
)

var factNames = []string{"the accesses", "action.has_where", "action.text", "action.params", "action.size", "action.functions",
	"action.columns", "principal.claims", "process", "process.argv0", "flow.start", "now"}

// String lists them as conditions write them.
func (f Facts) String() string {
	var names []string
	for i, n := range factNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ", ")
}

// factOf is which fact a field of a variable is; 0 for those that are part of every
// decision.
var factOf = map[string]Facts{
	"action.has_where": FactWhere, "action.text": FactText, "action.params": FactParams, "action.size": FactSize,
	"action.functions": FactFunctions, "action.languages": FactFunctions, "action.security_definer": FactFunctions,
	"action.columns_read": FactColumns, "action.columns_written": FactColumns, "action.columns_tested": FactColumns,
	"action.verb": 0, "action.resource": 0, "action.resources": 0,
	"principal.claims": FactClaims, "principal.user": 0, "principal.subject": 0, "principal.issuer": 0, "principal.kind": 0,
	"principal.groups": 0, "principal.actor": 0,
	"process.exe": FactProcess, "process.cgroup": FactProcess, "process.uid": FactProcess, "process.pod": FactProcess, "process.argv0": FactArgv0,
	"flow.start": FactStart, "flow.backend": 0, "flow.protocol": 0, "flow.destination": 0, "flow.database": 0, "flow.login": 0, "flow.node": 0,
}

// factsOf is what a condition reads. What it does not know it takes for everything.
func factsOf(checked *cel.Ast) Facts {
	var facts Facts
	idents := ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), ast.KindMatcher(ast.IdentKind))
	for _, e := range idents {
		name := e.AsIdent()
		if name == "now" {
			facts |= FactNow
			continue
		}
		if _, ours := variables[name]; !ours {
			continue
		}
		fact := allFacts
		if parent, ok := e.Parent(); ok && parent.Kind() == ast.SelectKind {
			if f, known := factOf[name+"."+parent.AsSelect().FieldName()]; known {
				fact = f
			}
		}
		facts |= fact
	}
	return facts
}
