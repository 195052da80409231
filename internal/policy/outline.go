package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Row is a rule of a policy as people read it. Empty lists stand for everything.
type Row struct {
	Policy    string
	Backends  []string
	Rule      string
	Effect    string
	Groups    []string
	Users     []string
	Kinds     []string
	Actions   []string
	Resources []string
	When      string
	Approval  string // what approve asks for, in words
	Record    string
}

// Outline lists the rules of policy files, in their order, without compiling them:
// also those of an older version can be shown.
func Outline(files []File) ([]Row, error) {
	c := &compiler{}
	var rows []Row
	for _, f := range files {
		c.decode(f)
		src := c.files[len(c.files)-1]
		if err := src.doc.Err(f.Name); err != nil {
			return nil, err
		}
		for _, p := range src.yaml.Policies {
			for _, r := range p.Rules {
				rows = append(rows, Row{Policy: p.Name, Backends: slices.Clone(p.Backends), Rule: r.Name, Effect: r.Effect, Groups: r.Groups, Users: r.Users,
					Kinds: r.Kinds, Actions: r.Actions, Resources: r.Resources, When: r.When, Approval: r.Approve.words(), Record: r.Record})
			}
		}
	}
	return rows, nil
}

// words says what is asked for.
func (a *approveYAML) words() string {
	if a == nil {
		return ""
	}
	quorum := func(groups []string, count *int) string {
		n := 1
		if count != nil {
			n = *count
		}
		return fmt.Sprintf("%d of %s", n, strings.Join(groups, " or "))
	}
	var parts []string
	if len(a.Groups) > 0 {
		parts = append(parts, quorum(a.Groups, a.Count))
	}
	for _, q := range a.AllOf {
		parts = append(parts, quorum(q.Groups, q.Count))
	}
	text := strings.Join(parts, " and ")
	add := func(name, value string) {
		if value != "" {
			text += "; " + name + " " + value
		}
	}
	add("grant", a.Grant)
	add("proof", a.Proof)
	if a.RequireReason {
		text += "; with a reason"
	}
	if a.BreakGlass != nil {
		add("break glass by", strings.Join(a.BreakGlass.Groups, " or "))
	}
	return text
}
