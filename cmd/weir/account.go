package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/completeness"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func auditAccountCommand() *cli.Command {
	return &cli.Command{
		Name:  "account",
		Usage: "the kernel's counters of connections against the flows in the log, recorded now",
		Description: "Asks the running agent (root). Every connection that the kernel handed over has one flow in the log or a cause why\n" +
			"it has none. Exits 4 when there is one without. The agent records the same every ten minutes, when it stops, and when something is missing.",
		Flags:  []cli.Flag{outputFlag()},
		Action: auditAccount,
	}
}

func auditAccount(c *cli.Context) error {
	asJSON, err := wantJSON(c)
	if err != nil {
		return err
	}
	var account auditlog.Completeness
	if err := client(c).Call(c.Context, http.MethodPost, "/v1/account", nil, &account); err != nil {
		return err
	}
	if asJSON {
		err = printJSON(c.App.Writer, &account)
	} else {
		fmt.Fprintf(c.App.Writer, "%s to %s, run %d; the kernel counts since %s\n", account.From.Format(time.RFC3339), account.To.Format(time.RFC3339),
			account.Run, account.Counting.Format(time.RFC3339))
		err = table(c.App.Writer, "BACKEND\tREDIRECTED\tHANDED OVER\tOPENED\tREFUSED\tUNCLAIMED\tUNDER WAY\tDIFFERENCE", func(row func(...any)) {
			for _, b := range account.Backends {
				row(b.Backend, b.Kernel.Redirected, b.Kernel.HandedOver, b.Opened, b.Refused, b.Unclaimed, b.UnderWay, b.Difference)
			}
		})
	}
	if err == nil && !account.Complete() {
		return cli.Exit(completeness.Why(&account), exitUnproven)
	}
	return err
}

// accountText is an account in one line.
func accountText(c *auditlog.Completeness) string {
	var handed, opened, refused, unclaimed, underWay, lost uint64
	var difference int64
	for _, b := range c.Backends {
		handed, opened, refused = handed+b.Kernel.HandedOver, opened+b.Opened, refused+b.Refused
		unclaimed, underWay, lost = unclaimed+b.Unclaimed, underWay+b.UnderWay, lost+b.AgentLost
		difference += b.Difference
	}
	parts := []string{fmt.Sprintf("%s: handed over %d, opened %d, refused %d", c.Scope, handed, opened, refused)}
	for _, x := range []struct {
		n    uint64
		text string
	}{{unclaimed, "unclaimed"}, {underWay, "under way"}, {lost, "lost with the agent"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", x.text, x.n))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("difference %d", difference)), ", ")
}
