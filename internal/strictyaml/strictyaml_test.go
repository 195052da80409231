package strictyaml

import (
	"errors"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Name  string            `yaml:"name"`
	Port  uint16            `yaml:"port"`
	After Duration          `yaml:"after"`
	Tags  []string          `yaml:"tags"`
	Env   map[string]string `yaml:"env"`
	On    bool              `yaml:"on"`
	Free  map[string]any    `yaml:"free"`
}

type outer struct {
	Title string   `yaml:"title"`
	Items []inner  `yaml:"items"`
	One   *inner   `yaml:"one"`
	Mode  modeWord `yaml:"mode"`
}

// modeWord is a word or a mapping.
type modeWord struct {
	Word  string
	Limit int `yaml:"limit"`
}

func (m *modeWord) ParseScalar(s string) error {
	if s != "all" {
		return &FixError{"this is no mode", "write all"}
	}
	m.Word = s
	return nil
}

const good = `
title: x
items:
  - name: a
    port: 5432
    after: 400d
    tags: &t [x, y]
    env: {A: b}
    on: true
    free: {n: 1, l: [a]}
  - {name: b, tags: *t}
one: {name: c}
mode: {limit: 3}
`

func TestDecode(t *testing.T) {
	var v outer
	d := Decode([]byte(good), &v)
	if err := d.Err("f"); err != nil {
		t.Fatal(err)
	}
	if len(v.Items) != 2 || v.Items[0].Port != 5432 || time.Duration(v.Items[0].After) != 400*24*time.Hour ||
		v.Items[1].Tags[1] != "y" || v.One.Name != "c" || v.Mode.Limit != 3 || v.Items[0].Free["n"] != 1 {
		t.Fatalf("%+v", v)
	}
	for path, line := range map[string]int{"items[0].port": 5, "items[1].name": 11, "items[1].none": 11, "one": 12, "zzz": 2} {
		if got := d.Line(path); got != line {
			t.Errorf("Line(%q) = %d, want %d", path, got, line)
		}
	}
	if !d.Has("mode.limit") || d.Has("one.port") {
		t.Error("Has is wrong")
	}
}

// Every problem is reported, with its line and without the values.
func TestDecodeProblems(t *testing.T) {
	var v outer
	text := `titel: hunter2
title:
title: again
items:
  - {name: [hunter2], port: hunter2, after: hunter2}
  - {port: 70000, tags: hunter2, env: [hunter2], on: 5}
one: {<<: {name: hunter2}}
mode: hunter2
zzz: 1
`
	err := Decode([]byte(text), &v).Err("f.yaml")
	want := []string{
		`f.yaml:1: unknown key "titel" in the file; did you mean "title"?`,
		`f.yaml:2: title has no value; give it one or take the key out`,
		`f.yaml:3: key "title" stands here again, first on line 2; keep one of them`,
		`f.yaml:5: items[0].name must be a text`,
		`f.yaml:5: items[0].port must be a whole number`,
		`f.yaml:5: items[0].after: this is no length of time; write a number and a unit: 30s, 15m, 12h, 400d, 4w`,
		`f.yaml:6: items[1].port must be a whole number`,
		`f.yaml:6: items[1].tags must be a list; write [one, two], or one a line behind a dash`,
		`f.yaml:6: items[1].env must be a mapping (key: value)`,
		`f.yaml:6: items[1].on must be true or false`,
		`f.yaml:7: merge keys (<<) are not taken; write the keys out`,
		`f.yaml:8: mode: this is no mode; write all`,
		`f.yaml:9: unknown key "zzz" in the file; choose from items, mode, one, title`,
	}
	if got := strings.Split(err.Error(), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s", err, strings.Join(want, "\n"))
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("an error repeats a value")
	}
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != len(want) {
		t.Error("no *Error")
	}
}

func TestDecodeRefuses(t *testing.T) {
	bomb := "items:\n  - &a {tags: [x,x,x,x,x,x,x,x,x,x]}\n"
	list := "*a"
	for i := range 5 {
		_ = i
		list = "[" + strings.TrimSuffix(strings.Repeat(list+",", 20), ",") + "]"
	}
	for name, text := range map[string]string{
		"two documents": "title: a\n---\ntitle: b\n",
		"no mapping":    "[a, b]",
		"broken":        "title: [a\nitems: \"hunter2",
		"tabs":          "title:\n\t- x",
		"bomb":          bomb + "free: " + list,
		"self":          "items: &a [*a]",
		"deep":          "items: " + strings.Repeat("[", 200) + strings.Repeat("]", 200),
		"huge":          strings.Repeat("#", MaxBytes+1),
	} {
		var v outer
		err := Decode([]byte(text), &v).Err("f")
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var v outer
	if err := Decode(nil, &v).Err("f"); err != nil {
		t.Error(err)
	}
}

func TestParseDuration(t *testing.T) {
	day := 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"400d": 400 * day, "1d12h": 36 * time.Hour, "2w": 14 * day, "1w1d1h": 8*day + time.Hour,
		"15m": 15 * time.Minute, "0": 0, "1.5h": 90 * time.Minute, "36500d": 36500 * day,
	} {
		if got, ok := ParseDuration(text); !ok || got != want {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "5", "-1h", "d", "1.5d", "36501d", "99999999999w", "1d-2h", "5000w5000d999999h", "2562047h", "1h1d", "x"} {
		if got, ok := ParseDuration(text); ok {
			t.Errorf("%q is taken: %v", text, got)
		}
	}
	if s := Duration(400 * day).String(); s != "400d" {
		t.Error(s)
	}
}

func TestSuggest(t *testing.T) {
	choices := []string{"groups", "users", "kinds", "actions"}
	for word, want := range map[string]string{
		"group": `did you mean "groups"?`, "Actions": `did you mean "actions"?`, "acitons": `did you mean "actions"?`,
		"nothing": "choose from groups, users, kinds, actions",
	} {
		if got := Suggest(word, choices); got != want {
			t.Errorf("%q: %s", word, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("items: &a [*a]"))
	f.Add([]byte("? {a: b}\n: c\n<<: x\n"))
	f.Add([]byte("a: !!binary x\nmode: !!float 3\none: !!set {a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v outer
		_ = Decode(data, &v).Err("f")
	})
}
