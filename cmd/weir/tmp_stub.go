package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/flow"
)

func doctorCommand() *cli.Command { return &cli.Command{Name: "doctor"} }
func analyseSQL(ctx context.Context, sql string) ([]flow.Action, error) {
	return nil, nil
}
