package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/identity"
)

// loginTimeout is how long a person may take at the provider's page.
const loginTimeout = 5 * time.Minute

func loginCommand() *cli.Command {
	return &cli.Command{
		Name:  "login",
		Usage: "sign in; this login session is then you",
		Description: "Opens the identity provider's page (authorization code with PKCE on a loopback address), or with --device prints a\n" +
			"code to type on another device. The identity is bound to this login: its audit session, else user and cgroup.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "issuer", Usage: "sign in at `URL` (needed when several are configured)"},
			&cli.BoolFlag{Name: "device", Usage: "show a code for another device; for machines without a browser"},
			outputFlag(),
		},
		Action: func(c *cli.Context) error {
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			agent := client(c)
			issuer, err := pickIssuer(c, agent)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context, loginTimeout)
			defer cancel()
			token, err := identity.Login(ctx, identity.LoginConfig{
				Issuer: issuer.Issuer, ClientID: issuer.ClientID, CAFile: issuer.CAFile, Device: c.Bool("device"), Out: os.Stderr,
			})
			if err != nil {
				return err
			}
			var who control.Identity
			if err := agent.Call(c.Context, http.MethodPost, "/v1/login", control.Bind{Token: token}, &who); err != nil {
				return err
			}
			return printIdentity(asJSON, "signed in as", &who)
		},
	}
}

func pickIssuer(c *cli.Context, agent *control.Client) (*control.Issuer, error) {
	var issuers []control.Issuer
	if err := agent.Call(c.Context, http.MethodGet, "/v1/issuers", nil, &issuers); err != nil {
		return nil, err
	}
	want := strings.TrimRight(c.String("issuer"), "/")
	var names []string
	for i := range issuers {
		if strings.TrimRight(issuers[i].Issuer, "/") == want {
			return &issuers[i], nil
		}
		names = append(names, issuers[i].Issuer)
	}
	switch {
	case want != "":
		return nil, usagef("issuer %s is not configured on this node; it has: %s", want, strings.Join(names, ", "))
	case len(issuers) == 1:
		return &issuers[0], nil
	case len(issuers) == 0:
		return nil, fmt.Errorf("no identity provider is configured on this node; ask whoever keeps its weir.yaml")
	}
	return nil, usagef("several identity providers are configured; choose one with --issuer: %s", strings.Join(names, ", "))
}

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name:        "logout",
		Usage:       "forget who this login session is; its open connections are cut",
		Description: "Inside `weir exec` it ends the identity of that command, otherwise that of the login and of what was started from it.",
		Action: func(c *cli.Context) error {
			var who control.Identity
			if err := client(c).Call(c.Context, http.MethodPost, "/v1/logout", nil, &who); err != nil {
				return err
			}
			fmt.Printf("signed out %s\n", clean(who.User))
			return nil
		},
	}
}

func whoamiCommand() *cli.Command {
	return &cli.Command{
		Name:        "whoami",
		Usage:       "who the calling process is to weir",
		Description: "Exits 1 when nobody is signed in or the sign-in has expired.",
		Flags:       []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			var who control.Identity
			if err := client(c).Call(c.Context, http.MethodGet, "/v1/whoami", nil, &who); err != nil {
				return err
			}
			return printIdentity(asJSON, "", &who)
		},
	}
}

func printIdentity(asJSON bool, lead string, who *control.Identity) error {
	if asJSON {
		return printJSON(os.Stdout, who)
	}
	name := clean(who.User)
	if who.Actor != "" {
		name = clean(who.Actor) + " for " + name
	}
	if lead != "" {
		name = lead + " " + name
	}
	fmt.Printf("%s until %s (%s)\n", name, who.Expires.Local().Format("2006-01-02 15:04:05"), who.Scope)
	fmt.Printf("  kind %s, groups %s, issuer %s\n", who.Kind, or(clean(strings.Join(who.Groups, ","))), clean(who.Issuer))
	if who.Warning != "" {
		fmt.Fprintln(os.Stderr, "weir: "+who.Warning)
	}
	return nil
}
