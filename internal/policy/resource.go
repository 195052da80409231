package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

// form is the shape of a resource. A pattern speaks only for resources of a form
// that it can have itself; see patternForms.
type form uint16

const (
	formNone     form = 0
	formDatabase form = 1 << iota
	formFunction
	formRole
	formSetting
	formLogin
	formChannel
	formRelation // SQL: schema.relation
	formPath     // http, sftp, nonresource
	formKube     // namespace/resource[.group][/name][/subresource]
	formCommand  // ssh exec
	formHostPort // tcp, ssh forwarding

	formsPrefixed = formDatabase | formFunction | formRole | formSetting | formLogin | formChannel
	formsSQL      = formDatabase | formFunction | formRole | formSetting | formChannel | formRelation
	formsSingle   = formDatabase | formRole | formLogin | formChannel // names of one part
	formsDotted   = formRelation | formFunction | formSetting
)

// prefixes are written before the name and settle the form.
var prefixes = []struct {
	text string
	form form
}{
	{"database:", formDatabase},
	{"function:", formFunction},
	{"role:", formRole},
	{"setting:", formSetting},
	{"login:", formLogin},
	{"channel:", formChannel}, // LISTEN and NOTIFY
}

func (f form) String() string {
	var names []string
	for _, p := range prefixes {
		if f&p.form != 0 {
			names = append(names, p.text)
		}
	}
	for _, n := range []struct {
		form form
		name string
	}{{formRelation, "schema.relation"}, {formPath, "/path"}, {formKube, "namespace/resource"},
		{formCommand, "command line"}, {formHostPort, "host:port"}} {
		if f&n.form != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ", ")
}

// formOf is the form of an access's resource. The verb settles it where it can:
// a relation whose schema is called "function:x" stays a relation.
func formOf(p flow.Protocol, verb flow.Verb, resource string) form {
	switch p {
	case flow.Postgres, flow.MySQL:
		return formOfSQL(verb, resource)
	case flow.Kubernetes:
		if resource == "" || verb == flow.Connect {
			return formNone
		}
		if resource[0] == '/' {
			return formPath
		}
		return formKube
	case flow.SSH:
		return formOfSSH(verb, resource)
	case flow.HTTP:
		if resource == "" || verb == flow.Connect && resource[0] != '/' {
			return formNone
		}
		return formPath
	case flow.TCP:
		return formHostPort
	}
	return guessForm(verb, resource)
}

func formOfSQL(verb flow.Verb, resource string) form {
	switch verb {
	case flow.Select, flow.Insert, flow.Update, flow.Delete, flow.Truncate, flow.Merge, flow.CopyIn, flow.CopyOut:
		return formRelation
	}
	if resource == "" {
		return formNone
	}
	if f := prefixForm(resource); f&formsSQL != 0 {
		return f
	}
	return formRelation
}

func formOfSSH(verb flow.Verb, resource string) form {
	switch verb {
	case "exec":
		return formCommand
	case "sftp_read", "sftp_write", "sftp_remove", "sftp_other", "scp":
		return formPath
	case "forward_local", "forward_remote":
		return formHostPort
	}
	if prefixForm(resource) == formLogin {
		return formLogin
	}
	return formNone
}

// guessForm serves `policy test` and `policy explain`, where the protocol of a
// backend may not be known.
func guessForm(verb flow.Verb, resource string) form {
	switch {
	case resource == "":
		return formNone
	case sqlVerbs[verb] && verb != flow.Connect:
		return formOfSQL(verb, resource)
	case sshVerbs[verb] && verb != flow.Connect:
		return formOfSSH(verb, resource)
	}
	switch {
	case prefixForm(resource) != formNone:
		return prefixForm(resource)
	case resource[0] == '/':
		return formPath
	case looksLikeHostPort(resource):
		return formHostPort
	case strings.IndexByte(resource, '/') >= 0:
		return formKube
	}
	return formRelation
}

func prefixForm(s string) form {
	for i := range prefixes {
		if strings.HasPrefix(s, prefixes[i].text) {
			return prefixes[i].form
		}
	}
	return formNone
}

// looksLikeHostPort: no slash, no space, and a number or a wildcard after the
// last colon.
func looksLikeHostPort(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i == len(s)-1 || strings.ContainsAny(s, "/ ") {
		return false
	}
	for _, c := range []byte(s[i+1:]) {
		if (c < '0' || c > '9') && c != '*' {
			return false
		}
	}
	return true
}

// pattern is one entry of a rule's resources, compiled for each form that it can
// speak for.
type pattern struct {
	text  string
	forms form
	any   bool // ** alone: matches every resource of every form
	name  []op // formsSingle
	sql   []op // formsDotted
	path  []op // paths and Kubernetes names
	cmd   []op
	host  []op
	port  []op // nil: every port
}

// patternForms says which forms a pattern can have. What starts with a prefix
// has that form; a slash at the start makes a path (and a command, which may be
// called by its path); the rest can be any plain name, and a host and port when
// it looks like one.
func patternForms(text string) form {
	if text == "**" {
		return ^formNone
	}
	if f := prefixForm(text); f != formNone {
		return f
	}
	if text[0] == '/' {
		return formPath | formCommand
	}
	switch {
	case strings.HasPrefix(text, "**/"):
		return formCommand | formPath | formKube
	case looksLikeHostPort(text):
		return formCommand | formHostPort
	case strings.IndexByte(text, '/') >= 0:
		return formCommand | formKube
	case strings.IndexByte(text, ' ') >= 0:
		return formCommand | formRelation
	}
	return formCommand | formHostPort | formKube | formRelation
}

func newPattern(text string) (*pattern, error) {
	if text == "" {
		return nil, errEmptyGlob
	}
	p := &pattern{text: text, forms: patternForms(text), any: text == "**"}
	if p.any {
		return p, nil
	}
	rest := text
	if p.forms&formsPrefixed != 0 {
		_, rest, _ = strings.Cut(text, ":")
	}
	host, port := splitHostPort(rest)
	for _, c := range []struct {
		forms  form
		text   string
		to     *[]op
		ends   *[256]bool
		quotes bool
	}{
		{formsSingle, rest, &p.name, plainEnds, true},
		{formsDotted, rest, &p.sql, dotEnds, true},
		{formPath | formKube, rest, &p.path, pathEnds, false},
		{formCommand, rest, &p.cmd, commandEnds, false},
		{formHostPort, host, &p.host, plainEnds, false},
	} {
		if p.forms&c.forms == 0 {
			continue
		}
		ops, err := compileGlob(c.text, c.ends, c.quotes)
		if err != nil {
			// A shape that the text cannot have is none of its forms: an open
			// quote is fine in a command and no name at all in SQL.
			if p.forms &^= c.forms; p.forms == 0 || c.quotes {
				return nil, fmt.Errorf("%q is no pattern: %w", text, err)
			}
			continue
		}
		*c.to = ops
	}
	if p.forms&formHostPort != 0 && port != "" {
		var err error
		if p.port, err = compileGlob(port, plainEnds, false); err != nil {
			return nil, fmt.Errorf("%q is no pattern: %w", text, err)
		}
	}
	return p, nil
}

// match is asked only with a form that p speaks for.
func (p *pattern) match(f form, resource string) bool {
	if p.any {
		return true
	}
	switch f {
	case formDatabase, formRole, formLogin, formChannel:
		return matchSingle(p.name, resource[strings.IndexByte(resource, ':')+1:])
	case formFunction, formSetting:
		return matchDotted(p.sql, resource[strings.IndexByte(resource, ':')+1:])
	case formRelation:
		return matchDotted(p.sql, resource)
	case formPath, formKube:
		return matchOps(p.path, resource, pathEnds)
	case formCommand:
		return matchOps(p.cmd, resource, commandEnds)
	case formHostPort:
		return p.matchHostPort(resource)
	}
	return false
}

// matchSingle matches a name of one part, which may be quoted as a whole.
func matchSingle(ops []op, name string) bool {
	if len(name) > 1 && name[0] == '"' {
		if n, plain, ok := unquote(name); ok && n == len(name) {
			name = plain
		}
	}
	return matchOps(ops, name, plainEnds)
}

// matchHostPort takes the host as one part, so that `*:22` is port 22 of any
// host; a pattern without a port is for all ports. An IPv6 address stands in
// brackets, so the last colon ends the host.
func (p *pattern) matchHostPort(resource string) bool {
	host, port := splitHostPort(resource)
	return matchOps(p.host, host, plainEnds) && (p.port == nil || matchOps(p.port, port, plainEnds))
}

func splitHostPort(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.IndexByte(s[i:], ']') >= 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

// target is the resource of an access as patterns are matched against it.
type target struct {
	form     form
	resource string
	// reach is set on an SQL resource that is itself a pattern: "shop.*" is
	// everything in shop (GRANT ON ALL TABLES IN SCHEMA, DROP SCHEMA), "*.*" what
	// the text does not show. A star in a real name stands in quotes.
	reach []op
	far   bool // reach is set, or cannot be read
}

func newTarget(p flow.Protocol, a *flow.Access) target {
	t := target{form: formOf(p, a.Verb, a.Resource), resource: a.Resource}
	if t.form&formsSQL == 0 || strings.IndexByte(a.Resource, '*') < 0 {
		return t
	}
	name, ends := a.Resource, dotEnds
	if t.form != formRelation {
		name = name[strings.IndexByte(name, ':')+1:]
	}
	if t.form&formsSingle != 0 {
		ends = plainEnds
	}
	ops, err := compileGlob(name, ends, true)
	if err == nil && !slices.ContainsFunc(ops, func(o op) bool { return o.kind >= opStar }) {
		return t
	}
	t.reach, t.far = ops, true
	return t
}

// matchTarget is asked only with a form that p speaks for. Of a resource that
// reaches far a rule that allows must cover all; for one that denies or asks for
// approval it is enough that they have something in common.
func (p *pattern) matchTarget(t *target, effect flow.Verdict) bool {
	if !t.far || p.any {
		return p.match(t.form, t.resource)
	}
	ops := p.sql
	if t.form&formsSingle != 0 {
		ops = p.name
	}
	if effect == flow.Allow {
		return t.reach != nil && coversOps(ops, t.reach)
	}
	return t.reach == nil || meetOps(ops, t.reach)
}
