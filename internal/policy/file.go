package policy

import (
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/strictyaml"
)

// File is one policy file as it was read.
type File struct {
	Name string // for messages; not part of the revision
	Data []byte
}

// The structs below are the files' form, one to one (contract, section 3).

type fileYAML struct {
	Policies  []policyYAML            `yaml:"policies"`
	Detectors map[string]detectorYAML `yaml:"detectors"`
}

type detectorYAML struct {
	Pattern string `yaml:"pattern"` // RE2
}

type policyYAML struct {
	Name     string     `yaml:"name"`
	Backends []string   `yaml:"backends"` // names or globs; left out: all
	Rules    []ruleYAML `yaml:"rules"`
	Masks    []maskYAML `yaml:"masks"`
	Tests    []testYAML `yaml:"tests"`
}

type ruleYAML struct {
	Name      string       `yaml:"name"`
	Groups    []string     `yaml:"groups"`
	Users     []string     `yaml:"users"`
	Kinds     []string     `yaml:"kinds"`
	Actions   []string     `yaml:"actions"`
	Resources []string     `yaml:"resources"`
	When      string       `yaml:"when"`
	Effect    string       `yaml:"effect"`
	Approve   *approveYAML `yaml:"approve"`
	Record    string       `yaml:"record"`
}

type approveYAML struct {
	Groups        []string            `yaml:"groups"`
	Count         *int                `yaml:"count"`
	AllOf         []quorumYAML        `yaml:"all_of"`
	Timeout       strictyaml.Duration `yaml:"timeout"`
	Grant         string              `yaml:"grant"`
	AtExpiry      string              `yaml:"at_expiry"`
	Proof         string              `yaml:"proof"`
	Prompt        string              `yaml:"prompt"`
	MaxAge        strictyaml.Duration `yaml:"max_age"`
	RequireReason bool                `yaml:"require_reason"`
	BreakGlass    *breakGlassYAML     `yaml:"break_glass"`
}

type quorumYAML struct {
	Groups []string `yaml:"groups"`
	Count  *int     `yaml:"count"`
}

type breakGlassYAML struct {
	Groups []string `yaml:"groups"`
}

type maskYAML struct {
	Name         string         `yaml:"name"`
	Columns      []string       `yaml:"columns"`
	Detect       []string       `yaml:"detect"`
	Fields       []string       `yaml:"fields"`
	With         string         `yaml:"with"`
	UnlessGroups []string       `yaml:"unless_groups"`
	Predicates   predicatesYAML `yaml:"predicates"`
}

type testYAML struct {
	User     string         `yaml:"user"`
	Groups   []string       `yaml:"groups"`
	Kind     string         `yaml:"kind"`
	Claims   map[string]any `yaml:"claims"`
	Backend  string         `yaml:"backend"`
	Database string         `yaml:"database"`
	Process  processYAML    `yaml:"process"`
	Now      string         `yaml:"now"` // RFC 3339
	SQL      string         `yaml:"sql"`
	Action   string         `yaml:"action"` // "verb resource"
	Expect   string         `yaml:"expect"`
	Rule     string         `yaml:"rule"`

	Masks   map[string]string `yaml:"masks"`   // column or position: method or none
	Refused string            `yaml:"refused"` // part of what masks say
}

type processYAML struct {
	Exe    string   `yaml:"exe"`
	Argv0  string   `yaml:"argv0"`
	UID    uint32   `yaml:"uid"`
	Cgroup string   `yaml:"cgroup"`
	Pod    *podYAML `yaml:"pod"`
}

type podYAML struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	UID       string `yaml:"uid"`
	Container string `yaml:"container"`
}

// at builds the path of a value for Document.Line.
func at(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		case int:
			b.WriteString("[" + strconv.Itoa(p) + "]")
		}
	}
	return b.String()
}
