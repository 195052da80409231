// Package strictyaml decodes Weir's YAML files (configuration, policy) into
// structs and says everything that is wrong with them at once, each with its
// line. It owns no semantics and opens no file.
//
// It is stricter than YAML: an unknown, duplicate or empty key is an error,
// there is one document to a file, and merge keys are refused. Error texts name
// keys, never values, because a value may be a secret in the wrong place.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file. A configuration or policy written by people stays far below.
const (
	MaxBytes = 4 << 20
	maxDepth = 64
	maxNodes = 200_000 // after aliases are followed, so that they cannot explode
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	Line int    `json:"line,omitempty"` // 1-based; 0: the file as a whole
	What string `json:"what"`
	Fix  string `json:"fix,omitempty"` // what to do
}

func (p Problem) String() string {
	s := p.What
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	if p.Line > 0 {
		return strconv.Itoa(p.Line) + ": " + s
	}
	return " " + s
}

// Error is everything that is wrong with one file.
type Error struct {
	File     string // "" when it has no name
	Problems []Problem
}

// Error puts each problem on a line of its own: FILE:LINE: what; what to do.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = e.File + ":" + p.String()
	}
	return strings.Join(lines, "\n")
}

// Document is a decoded file: it knows the line of every value.
type Document struct {
	lines    map[string]int
	problems []Problem
}

// Scalar is a type that a plain YAML value is turned into. The error says what
// is wrong without repeating the value.
type Scalar interface {
	ParseScalar(text string) error
}

// FixError is an error that says what to do as well.
type FixError struct{ What, Fix string }

func (e *FixError) Error() string { return e.What + "; " + e.Fix }

// Decode decodes data into the struct that v points to. The document is never
// nil: a caller adds its own problems and then asks for Err.
func Decode(data []byte, v any) *Document {
	d := &Document{lines: make(map[string]int)}
	if len(data) > MaxBytes {
		d.Add("", fmt.Sprintf("the file is larger than %d bytes", MaxBytes), "split it")
		return d
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root, more yaml.Node
	switch err := dec.Decode(&root); {
	case errors.Is(err, io.EOF):
		return d // an empty file is an empty document
	case err != nil:
		d.syntax(err)
		return d
	}
	if err := dec.Decode(&more); err == nil {
		d.problem(more.Line, "the file holds more than one YAML document", "keep one; write the others to files of their own")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	w := walker{doc: d}
	w.value(root.Content[0], reflect.ValueOf(v).Elem(), "", 0)
	return d
}

// Line is the line of the value at a path like "backends[2].addresses[0]", or of
// the nearest value around it.
func (d *Document) Line(path string) int {
	for path != "" {
		if n, ok := d.lines[path]; ok {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			break
		}
		path = path[:i]
	}
	return d.lines[""]
}

// Has reports whether the file gives a value at the path.
func (d *Document) Has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

// Add adds a problem with the value at the path.
func (d *Document) Add(path, what, fix string) { d.problem(d.Line(path), what, fix) }

func (d *Document) problem(line int, what, fix string) {
	d.problems = append(d.problems, Problem{line, what, fix})
}

// Err is nil or an *Error with every problem, in the order of their lines.
func (d *Document) Err(file string) error {
	if len(d.problems) == 0 {
		return nil
	}
	ps := append([]Problem(nil), d.problems...)
	sort.SliceStable(ps, func(i, j int) bool { return ps[i].Line < ps[j].Line })
	return &Error{File: file, Problems: ps}
}

var (
	yamlLine  = regexp.MustCompile(`line (\d+): `)
	yamlValue = regexp.MustCompile("[`'\"].*[`'\"]")
)

// syntax adds an error of the YAML library, without the values it may quote.
func (d *Document) syntax(err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = strings.Replace(text, m[0], "", 1)
	}
	text = yamlValue.ReplaceAllString(text, "...")
	d.problem(line, "this is no YAML: "+text, "check the indentation, colons and quotes around here")
}
