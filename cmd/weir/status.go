package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/control"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:        "status",
		Usage:       "ready or why not, links attached, backends, flows",
		Description: "Exits 0 only when the agent is ready.",
		Flags:       []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			var s control.Status
			if err := client(c).Call(c.Context, http.MethodGet, "/v1/status", nil, &s); err != nil {
				return err
			}
			if asJSON {
				err = printJSON(os.Stdout, s)
			} else {
				printStatus(&s)
			}
			if err == nil && !s.Ready {
				return cli.Exit("the agent is not ready: "+strings.Join(s.Problems, "; "), exitFailed)
			}
			return err
		},
	}
}

func printStatus(s *control.Status) {
	state := "ready"
	if !s.Ready {
		state = "not ready"
	}
	fmt.Printf("%s: %s (weir %s, pid %d, up %s, mode %s)\n", s.Node, state, s.Version, s.PID, ago(s.Started), s.Mode)
	for _, p := range s.Problems {
		fmt.Println("  problem:", clean(p))
	}
	fmt.Println("policy:  ", or(s.Policy))
	fmt.Printf("audit:    %s, durability %s, %d events, %d sealed\n", s.Audit.Dir, s.Audit.Durability, s.Audit.Seq, s.Audit.Sealed)
	fmt.Println("flows:   ", s.Flows)
	fmt.Println()
	_ = table(os.Stdout, "BACKEND\tPROTOCOL\tCONNECTIONS\tDESTINATIONS", func(row func(...any)) {
		for _, b := range s.Backends {
			text := strings.Join(b.Destinations, " ")
			if b.Problem != "" {
				text += " (" + b.Problem + ")"
			}
			row(b.Name, b.Protocol, connectionsText(b.Connections), or(text))
		}
	})
	fmt.Println()
	_ = table(os.Stdout, "CGROUP\tPROGRAM\tLINK\tPROGRAM ID", func(row func(...any)) {
		for _, l := range s.Links {
			row(l.Cgroup, l.Program, l.LinkID, l.ProgID)
		}
	})
	fmt.Println()
	_ = table(os.Stdout, "NETWORK NAMESPACE\tLISTENERS", func(row func(...any)) {
		for _, n := range s.Networks {
			text := strings.Join(n.Listeners, " ")
			if n.Problem != "" {
				text += " (" + n.Problem + ")"
			}
			row(n.Inode, or(text))
		}
	})
}

// connectionsText is what became of the connections that the kernel handed over.
func connectionsText(c *control.Connections) string {
	if c == nil {
		return "not counted"
	}
	text := fmt.Sprintf("%d: %d opened, %d refused", c.HandedOver, c.Opened, c.Refused)
	for _, x := range []struct {
		n    int64
		what string
	}{{int64(c.Unclaimed), "left early"}, {int64(c.UnderWay), "under way"}, {c.Difference, "MISSING in the audit log"}} {
		if x.n != 0 {
			text += fmt.Sprintf(", %d %s", x.n, x.what)
		}
	}
	return text
}
