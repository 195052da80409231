package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/ca"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/pkg/auditlog"
)

func trustCommand() *cli.Command {
	return &cli.Command{
		Name:  "trust",
		Usage: "what clients and auditors must trust: weir's CA, the log's public key",
		Subcommands: []*cli.Command{
			{
				Name:        "bundle",
				Usage:       "print the CA certificate (PEM), or with --log the log's public key",
				Description: "Clients that verify certificates (sslmode=verify-full) need it; others need nothing.",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "log", Usage: "the public key that verifies the audit log"},
					&cli.BoolFlag{Name: "ssh", Usage: "the @cert-authority line (this version has no SSH engine, so there is none)"},
				},
				Action: trustBundle,
			},
			{
				Name:        "install",
				Usage:       "put the CA certificate into this machine's trust store (root)",
				Description: "Debian and its descendants: a file in /usr/local/share/ca-certificates and update-ca-certificates.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "dir", Usage: "only write the certificate into `DIR`"},
					&cli.BoolFlag{Name: "remove", Usage: "take it out again"},
				},
				Action: trustInstall,
			},
		},
	}
}

// trusted reads a public file of the agent's: from the state directory where the
// caller may, else from the agent.
func trusted(c *cli.Context, name string, pick func(control.Trust) string) ([]byte, error) {
	cfg, err := loadConfig(c)
	if err == nil {
		b, readErr := os.ReadFile(filepath.Join(cfg.StateDir, "keys", name))
		if readErr == nil {
			return b, nil
		}
		if !errors.Is(readErr, fs.ErrNotExist) && !errors.Is(readErr, fs.ErrPermission) {
			return nil, readErr
		}
	}
	var t control.Trust
	if err := client(c).Call(c.Context, http.MethodGet, "/v1/trust", nil, &t); err != nil {
		return nil, fmt.Errorf("%s is made on the agent's first start: %w", name, err)
	}
	return []byte(pick(t)), nil
}

func trustBundle(c *cli.Context) error {
	if c.Bool("ssh") {
		return errors.New("this version has no SSH engine, so there is no SSH CA to trust")
	}
	var b []byte
	var err error
	if c.Bool("log") {
		b, err = trusted(c, filepath.Base(auditlog.PublicKeyFile("")), func(t control.Trust) string { return t.LogKey })
	} else {
		b, err = trusted(c, ca.CertFile, func(t control.Trust) string { return t.CA })
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

func trustInstall(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	store := ca.Folder(c.String("dir"))
	if c.String("dir") == "" {
		if store, err = ca.System(); err != nil {
			return err
		}
	}
	if c.Bool("remove") {
		if err := store.Uninstall(c.Context, cfg.Node); err != nil {
			return err
		}
		fmt.Println("removed", store.File(cfg.Node))
		return nil
	}
	pem, err := trusted(c, ca.CertFile, func(t control.Trust) string { return t.CA })
	if err != nil {
		return err
	}
	path, err := store.Install(c.Context, cfg.Node, pem)
	if err == nil {
		fmt.Println("installed", path)
	}
	return err
}
