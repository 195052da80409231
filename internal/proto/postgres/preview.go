package postgres

import (
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Preview is what masks do to one statement, as far as its text shows: what `weir
// policy explain` and the cases of a policy say about it.
type Preview struct {
	Columns []PreviewColumn
	// Refused says why the masks refuse the whole statement, "" when they do not.
	Refused string
	Spends  []flow.Spend
}

// PreviewColumn is one column of the result.
type PreviewColumn struct {
	Name    string // "" when the text does not show it
	Carries string // its lineage in words
	Mask    string // name of the mask that decided; "" for none
	Method  string // how it is masked; "" when it is not
	Source  string // lineage | unresolved
}

// PreviewMasks says what masks do to a statement that was analysed under a catalogue;
// the catalogue may be nil.
func PreviewMasks(masks []*policy.Mask, cat *sqlmeta.Catalog, st *sqlmeta.Statement) (Preview, error) {
	m, err := newColumnMasks(masks, cat)
	if err != nil {
		return Preview{}, err
	}
	var p Preview
	p.Refused, p.Spends = m.obliges(st)
	list := st.Output
	if list == nil && !st.All.Empty() {
		list = []sqlmeta.Output{{Lineage: st.All}}
	}
	for i := range list {
		info := m.lineage(&list[i].Lineage)
		c := PreviewColumn{Name: list[i].Name, Carries: list[i].Describe(), Method: info.method.String(), Source: info.source}
		if len(info.masks) > 0 {
			c.Mask = info.masks[0].Name
		}
		p.Columns = append(p.Columns, c)
	}
	return p, nil
}
