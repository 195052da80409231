package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/strictyaml"
)

func (c *compiler) mask(f *fileSource, path string, y *maskYAML, p *policyInfo, names map[string]bool) {
	m := &Mask{Name: y.Name, Policy: p.name, Detect: y.Detect, Fields: y.Fields, With: y.With, unlessGroups: y.UnlessGroups}
	c.name(f, path, "mask", y.Name)
	if names[y.Name] && y.Name != "" {
		f.doc.Add(at(path, "name"), fmt.Sprintf("policy %q has a mask %q already", p.name, y.Name), "rename one of them")
	}
	names[y.Name] = true
	if len(y.Columns)+len(y.Detect)+len(y.Fields) == 0 {
		f.doc.Add(path, fmt.Sprintf("mask %q masks nothing", y.Name), "add columns, detect or fields")
	}
	for i, text := range y.Columns {
		g, err := NewGlob(text)
		switch {
		case err != nil:
			f.doc.Add(at(path, "columns", i), fmt.Sprintf("%q is no pattern: %v", text, err), "")
		case !canHaveParts(g.ops, 3):
			f.doc.Add(at(path, "columns", i), fmt.Sprintf("%q can match no column", text), "write schema.table.column, with * or ** for what may vary")
		}
		m.Columns = append(m.Columns, g)
	}
	c.detect(f, path, y)
	for i, text := range y.Fields {
		if err := checkJSONPath(text); err != nil {
			f.doc.Add(at(path, "fields", i), fmt.Sprintf("%q is no path: %v", text, err), `write one like "$.customer.cards[*]" or "$..iban"`)
		}
	}
	if y.With == "" {
		f.doc.Add(path, fmt.Sprintf("mask %q does not say how", y.Name), "add with: "+strings.Join(methods, ", "))
	}
	c.oneOf(f, at(path, "with"), y.With, methods)
	if y.UnlessGroups != nil {
		c.notEmpty(f, at(path, "unless_groups"), y.UnlessGroups, "for nobody")
	}
	c.predicates(f, path, y, m)
	p.masks = append(p.masks, m)
}

func (c *compiler) detect(f *fileSource, path string, y *maskYAML) {
	known := append(slices.Sorted(maps.Keys(c.set.detectors)), BuiltinDetectors...)
	for i, name := range y.Detect {
		if !slices.Contains(known, name) {
			f.doc.Add(at(path, "detect", i), fmt.Sprintf("there is no detector %q", name),
				strictyaml.Suggest(name, known)+" (or define it under detectors:)")
		}
	}
}

// canHaveParts reports whether a dotted pattern can match a name of n parts.
func canHaveParts(ops []op, n int) bool {
	parts := 1
	for _, o := range ops {
		switch o.kind {
		case opStars:
			return true
		case opSep:
			parts++
		}
	}
	return parts == n
}

// checkJSONPath accepts the part of RFC 9535 that masks use: $ and then .name,
// .*, ..name, ..*, [*], [0], ['name'].
func checkJSONPath(text string) error {
	rest, ok := strings.CutPrefix(text, "$")
	if !ok {
		return fmt.Errorf("it does not start with $")
	}
	if rest == "" {
		return fmt.Errorf("it names the whole body")
	}
	for rest != "" {
		n, err := jsonPathStep(rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// jsonPathStep reads one step and returns its length.
func jsonPathStep(s string) (int, error) {
	start := 0
	switch {
	case strings.HasPrefix(s, "..["):
		start = 2
	case strings.HasPrefix(s, ".."):
		return jsonPathName(s, 2)
	case s[0] == '.':
		return jsonPathName(s, 1)
	}
	if s[start] != '[' {
		return 0, fmt.Errorf("a step starts with . or [")
	}
	end := strings.IndexByte(s, ']')
	if q := s[start+1:]; q != "" && (q[0] == '\'' || q[0] == '"') {
		closing := strings.IndexByte(q[1:], q[0])
		if closing < 0 || strings.ContainsRune(q[1:1+closing], '\\') {
			return 0, fmt.Errorf("a quoted name is not closed or holds a backslash")
		}
		if end = start + 1 + 1 + closing + 1; end >= len(s) || s[end] != ']' {
			return 0, fmt.Errorf("a bracket is not closed")
		}
		return end + 1, nil
	}
	if end < 0 {
		return 0, fmt.Errorf("a bracket is not closed")
	}
	inner := s[start+1 : end]
	if _, err := strconv.ParseUint(inner, 10, 31); inner != "*" && err != nil {
		return 0, fmt.Errorf("brackets hold *, a number from 0 or a quoted name")
	}
	return end + 1, nil
}

func jsonPathName(s string, i int) (int, error) {
	if i < len(s) && s[i] == '*' {
		return i + 1, nil
	}
	n := i
	for n < len(s) && s[n] != '.' && s[n] != '[' {
		if c := s[n]; c != '_' && c < 0x80 && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return 0, fmt.Errorf("a name holds %q; write it as ['name']", c)
		}
		n++
	}
	if n == i {
		return 0, fmt.Errorf("a name is missing after a dot")
	}
	return n, nil
}
