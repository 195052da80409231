package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/session"
)

func flowsCommand() *cli.Command {
	return &cli.Command{
		Name:  "flows",
		Usage: "live and recent flows",
		Description: "Lists the connections that the agent carries, and the last that ended. Root sees everybody's,\n" +
			"others their own.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "print each flow as it begins and ends, until Ctrl-C"},
			&cli.BoolFlag{Name: "live", Usage: "leave out those that ended"},
			outputFlag(),
		},
		Action: func(c *cli.Context) error {
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			if c.Bool("follow") {
				return followFlows(c, asJSON)
			}
			var got control.Flows
			path := "/v1/flows"
			if c.Bool("live") {
				path += "?live=1"
			}
			if err := client(c).Call(c.Context, http.MethodGet, path, nil, &got); err != nil {
				return err
			}
			if asJSON {
				if got.Flows == nil {
					got.Flows = []session.FlowInfo{}
				}
				return printJSON(os.Stdout, got.Flows)
			}
			return table(os.Stdout, flowHeader, func(row func(...any)) {
				for _, f := range got.Flows {
					row(flowCells(f)...)
				}
			})
		},
	}
}

const flowHeader = "FLOW\tUSER\tBACKEND\tDATABASE\tLOGIN\tPID\tACTIONS\tUP\tDOWN\tAGE\tSTATE"

func flowCells(f session.FlowInfo) []any {
	user := or(f.User)
	if f.Actor != "" {
		user = f.Actor + " for " + user
	}
	age := ago(f.Start)
	if f.End != nil {
		age = f.End.Sub(f.Start).Round(time.Millisecond).String()
	}
	return []any{f.ID, user, f.Backend, or(f.Database), or(f.Login), f.PID, f.Actions, bytesText(f.BytesUp), bytesText(f.BytesDown), age, f.State}
}

func followFlows(c *cli.Context, asJSON bool) error {
	if !asJSON {
		fmt.Println(flowHeader)
	}
	return client(c).Follow(c.Context, "/v1/flows?follow=1", func(raw json.RawMessage) error {
		if asJSON {
			_, err := fmt.Println(string(raw))
			return err
		}
		var f session.FlowInfo
		if err := json.Unmarshal(raw, &f); err != nil {
			return err
		}
		for i, cell := range flowCells(f) {
			if i > 0 {
				fmt.Print("\t")
			}
			fmt.Print(clean(fmt.Sprint(cell)))
		}
		fmt.Println()
		return nil
	})
}

// bytesText is a size in binary units.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%dB", n)
	}
	f, i := float64(n), -1
	for f >= unit && i < 3 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f%ciB", f, "KMGT"[i])
}
