package sqlparse

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// A statement's lineage goes through the views that it reads and the functions that it
// calls. Their texts are read here when a statement asks for them, and once for each
// picture of the catalogue.

// Bounds of what one statement has read for it.
const (
	// maxRounds is how deep views and functions may stand on each other.
	maxRounds = 16
	// maxDefinitions is how many are read in one round.
	maxDefinitions = 256
)

// read reads a definition. What it cannot read is a Body with a problem; an error says
// that it could be read another time.
func (a *Analyzer) read(ctx context.Context, d sqlmeta.Definition, c *sqlmeta.Catalog) (*sqlmeta.Body, error) {
	if !c.Reserve(len(d.Text) + len(d.Defaults)) {
		return &sqlmeta.Body{Problem: "more text of views and functions than weir keeps"}, nil
	}
	body := &sqlmeta.Body{}
	texts := []string{d.Text}
	if d.Kind == sqlmeta.PLpgSQLFunction {
		p, err := a.Pool.plpgsql(ctx, d.Text)
		if err != nil {
			return unreadableBody(err)
		}
		texts, body.Variables, body.Problem = p.Texts, p.Variables, p.Problem
	}
	if d.Defaults != "" {
		texts = append(texts, "SELECT "+d.Defaults)
	}
	for _, text := range texts {
		tree, err := a.Pool.Parse(ctx, text)
		if err != nil {
			return unreadableBody(err)
		}
		body.Statements = append(body.Statements, tree.GetStmts()...)
	}
	return body, nil
}

func unreadableBody(err error) (*sqlmeta.Body, error) {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrBusy), errors.Is(err, ErrClosed):
		return nil, err
	}
	return &sqlmeta.Body{Problem: fmt.Sprintf("its text cannot be read (%v)", err)}, nil
}
