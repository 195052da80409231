package main

import (
	"context"
	"io"
	"log/slog"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
)

// analyseSQL says what SQL text does where no database can be asked: names
// without a schema are taken to be in public. Text that cannot be read is an
// unknown action, as on the wire.
func analyseSQL(ctx context.Context, sql string) ([]flow.Action, error) {
	pool, err := sqlparse.New(sqlparse.Config{Size: 1, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	a := &sqlparse.Analyzer{Pool: pool}
	statements, err := a.Analyze(ctx, sql, sqlmeta.Session{Database: "postgres", SearchPath: []string{"public"}, Certain: true, StandardConformingStrings: true}, nil)
	if len(statements) == 0 && err != nil {
		return nil, err
	}
	return sqlmeta.Actions(statements), nil
}
