package strictyaml

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// walker turns nodes into values, guided by the Go type.
type walker struct {
	doc   *Document
	nodes int
	full  bool // the bound was reported
}

func (w *walker) problem(n *yaml.Node, what, fix string) { w.doc.problem(n.Line, what, fix) }

func (w *walker) value(n *yaml.Node, v reflect.Value, path string, depth int) {
	if w.nodes++; w.nodes > maxNodes || depth > maxDepth {
		if !w.full {
			w.full = true
			w.problem(n, "the file is nested too deeply or too large once its aliases are followed", "write it out with fewer aliases")
		}
		return
	}
	w.doc.lines[path] = n.Line
	if n.Kind == yaml.AliasNode {
		w.value(n.Alias, v, path, depth+1)
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		w.problem(n, where(path)+" has no value", "give it one or take the key out")
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if s, ok := v.Addr().Interface().(Scalar); ok && n.Kind == yaml.ScalarNode {
		w.parsed(n, path, s.ParseScalar(n.Value))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		w.structure(n, v, path, depth)
	case reflect.Slice:
		w.list(n, v, path, depth)
	case reflect.Map:
		w.mapping(n, v, path, depth)
	case reflect.Interface:
		w.free(n, v, path)
	default:
		w.scalar(n, v, path)
	}
}

func (w *walker) parsed(n *yaml.Node, path string, err error) {
	var fix *FixError
	switch {
	case errors.As(err, &fix):
		w.problem(n, where(path)+": "+fix.What, fix.Fix)
	case err != nil:
		w.problem(n, where(path)+": "+err.Error(), "")
	}
}

// keys calls each for every key of a mapping, once, and reports what is odd
// about the keys themselves.
func (w *walker) keys(n *yaml.Node, path string, each func(key string, keyNode, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		w.problem(n, where(path)+" must be a mapping (key: value)", "")
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case k.Kind != yaml.ScalarNode:
			w.problem(k, "a key of "+where(path)+" is no plain word", "")
			continue
		case k.ShortTag() == "!!merge":
			w.problem(k, "merge keys (<<) are not taken", "write the keys out")
			continue
		}
		if first, ok := seen[k.Value]; ok {
			w.problem(k, fmt.Sprintf("key %q stands here again, first on line %d", k.Value, first), "keep one of them")
			continue
		}
		seen[k.Value] = k.Line
		each(k.Value, k, n.Content[i+1])
	}
}

func (w *walker) structure(n *yaml.Node, v reflect.Value, path string, depth int) {
	fields := fieldsOf(v.Type())
	w.keys(n, path, func(key string, k, value *yaml.Node) {
		i, ok := fields[key]
		if !ok {
			w.problem(k, fmt.Sprintf("unknown key %q in %s", key, where(path)), suggestKey(key, fields))
			return
		}
		w.value(value, v.Field(i), join(path, key), depth+1)
	})
}

func (w *walker) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	m := reflect.MakeMap(v.Type())
	w.keys(n, path, func(key string, _, value *yaml.Node) {
		e := reflect.New(v.Type().Elem()).Elem()
		w.value(value, e, join(path, key), depth+1)
		m.SetMapIndex(reflect.ValueOf(key), e)
	})
	v.Set(m)
}

func (w *walker) list(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.SequenceNode {
		w.problem(n, where(path)+" must be a list", "write [one, two], or one a line behind a dash")
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		w.value(c, s.Index(i), path+"["+strconv.Itoa(i)+"]", depth+1)
	}
	v.Set(s)
}

func (w *walker) scalar(n *yaml.Node, v reflect.Value, path string) {
	kinds := map[reflect.Kind]string{reflect.String: "a text", reflect.Bool: "true or false"}
	want, ok := kinds[v.Kind()]
	if !ok {
		want = "a whole number"
	}
	if n.Kind != yaml.ScalarNode {
		w.problem(n, where(path)+" must be "+want, "")
		return
	}
	if v.Kind() == reflect.String {
		v.SetString(n.Value)
		return
	}
	if n.Decode(v.Addr().Interface()) != nil {
		w.problem(n, where(path)+" must be "+want, "")
	}
}

// free decodes a value of any shape (a token's claims).
func (w *walker) free(n *yaml.Node, v reflect.Value, path string) {
	var x any
	if n.Decode(&x) != nil {
		w.problem(n, where(path)+" cannot be read", "")
		return
	}
	if x != nil {
		v.Set(reflect.ValueOf(x))
	}
}

func fieldsOf(t reflect.Type) map[string]int {
	fields := make(map[string]int)
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" && name != "-" {
			fields[name] = i
		}
	}
	return fields
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// where names a place for people.
func where(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func suggestKey(key string, fields map[string]int) string {
	names := make([]string, 0, len(fields))
	for n := range fields {
		names = append(names, n)
	}
	slices.Sort(names)
	return Suggest(key, names)
}

// Suggest says what may have been meant: the closest of the choices, or all of
// them when none is close and they are few.
func Suggest(word string, choices []string) string {
	best, bestDist := "", 1+max(1, len(word)/3)
	for _, c := range choices {
		if d := distance(strings.ToLower(word), c); d < bestDist {
			best, bestDist = c, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %q?", best)
	case len(choices) == 0:
		return ""
	case len(choices) <= 50:
		return "choose from " + strings.Join(choices, ", ")
	}
	return ""
}

// distance is the Levenshtein distance, with a swap of neighbours as one step.
func distance(a, b string) int {
	prev2, prev, cur := []int(nil), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, make([]int, len(b)+1)
	}
	return prev[len(b)]
}
