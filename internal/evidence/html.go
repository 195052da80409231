package evidence

import (
	"fmt"
	"html/template"
	"io"
	"strings"

	_ "embed"
)

//go:embed index.html.tmpl
var pageText string

// view is what the page and the PDF show.
type view struct {
	M          *Manifest
	Framework  string
	Controls   []control
	Figures    [][2]string
	Limits     *tableView
	Tables     []*tableView
	Sample     string
	HasSample  bool
	Root       string
	Size       uint64
	From, To   string
	Length     string
	Warnings   int
	Notes      int
	FirstSeq   uint64
	LastSeq    uint64
	EventsText string
}

type tableView struct {
	Name, Title, About string
	Head               []string
	Rows               [][]string
	All, More          int
}

func (r *report) view(rows int) *view {
	v := &view{M: r.m, Framework: frameworkOf(r.m.Framework).title, Controls: frameworkOf(r.m.Framework).controls, Sample: r.sampleText(), HasSample: r.m.Sample > 0,
		Root: mustText(r.proof.Root), Size: r.proof.Size, From: stamp(r.m.From), To: stamp(r.m.To), Length: span(r.m.From, r.m.To),
		Warnings: r.findingsBy["warning"], Notes: r.findingsBy["note"], FirstSeq: r.firstSeq, LastSeq: r.lastSeq}
	v.EventsText = fmt.Sprintf("%d events, number %d to %d, first %s, last %s", r.events, r.firstSeq, r.lastSeq, whenText(r.first), whenText(r.last))
	for _, t := range r.tables {
		shown := t.shown[:min(len(t.shown), rows)]
		tv := &tableView{t.name, t.title, t.about, t.head, shown, t.rows, t.rows - len(shown)}
		switch t.name {
		case "limits":
			v.Limits = tv
		case "events":
			tv.Rows, tv.More = nil, t.rows
			v.Tables = append(v.Tables, tv)
		case "controls": // the page has them in a form of their own
		default:
			v.Tables = append(v.Tables, tv)
		}
	}
	add := func(what string, n any) { v.Figures = append(v.Figures, [2]string{what, fmt.Sprint(n)}) }
	add("identities", len(r.people))
	add("actions", r.actions)
	add("refused connections and actions", r.denials.rows)
	add("requests for approval", r.approvals.rows)
	add("values masked", r.maskedValues)
	add("refused attempts to go round", r.bypass.rows)
	add("policy revisions in force", len(r.revisions))
	return v
}

func (v *view) Rows(name string) int {
	for _, t := range v.Tables {
		if t.Name == name {
			return t.All
		}
	}
	if name == "controls" {
		return len(v.Controls)
	}
	return v.Limits.All
}

// class says how a cell breaks: short ones not, words too long for a line anywhere.
func class(cell string) string {
	switch {
	case len(cell) <= 31 && strings.Count(cell, " ") <= 1:
		return "n"
	case strings.IndexByte(cell, ' ') < 0 || len(cell) > 60:
		return "w"
	case len(cell) > 12:
		return "m"
	}
	return ""
}

func (r *report) writeHTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{"class": class}).Parse(pageText)
	if err != nil {
		return err
	}
	return t.Execute(w, r.view(maxShown))
}
