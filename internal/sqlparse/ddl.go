package sqlparse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// CatalogFromDDL makes a catalogue of SQL DDL, such as pg_dump --schema-only writes.
// Warnings say what of it was not understood; an error, what could not be parsed.
func CatalogFromDDL(ctx context.Context, p *Pool, text string) (*sqlmeta.Catalog, []string, error) {
	sql, warnings := sqlmeta.SplitDump(text)
	d := sqlmeta.NewDDL()
	line := 1
	for _, piece := range sqlmeta.Pieces(sql, sqlmeta.MaxText/4) {
		tree, err := p.Parse(ctx, piece)
		var syntax *SyntaxError
		if errors.As(err, &syntax) {
			before := []rune(piece)
			at := line + strings.Count(string(before[:min(max(syntax.Cursor-1, 0), len(before))]), "\n")
			return nil, nil, fmt.Errorf("line %d: %s", at, syntax.Message)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("behind line %d: %w", line, err)
		}
		d.Add(tree, piece)
		line += strings.Count(piece, "\n")
	}
	c, more := d.Catalog()
	return c, append(warnings, more...), nil
}
