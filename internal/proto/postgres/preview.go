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
	return Preview{}, nil
}
