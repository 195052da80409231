package main

import (
	"context"
	"errors"

	"github.com/weirproxy/weir/internal/sqlmeta"
	"github.com/weirproxy/weir/internal/sqlparse"
)

// catalogFromDDL stands in for the reading of DDL, which lands with sqlmeta.FromDDL.
func catalogFromDDL(_ context.Context, _ *sqlparse.Pool, _ string) (*sqlmeta.Catalog, []string, error) {
	return nil, nil, errors.New("this build cannot read DDL yet; leave --schema out")
}
