package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/ca"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/doctor"
	"github.com/weirproxy/weir/internal/redirect"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "what the kernel and the host offer, and what each lack costs",
		Description: "Tries kernel features by loading them, looks at cgroups, other eBPF users, privileges, certificates, clock, state and the\n" +
			"configuration. Changes nothing. Exits 1 when something keeps weir from working safely.",
		Flags: []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			asJSON, err := wantJSON(c)
			if err != nil {
				return err
			}
			checks := doctor.Run(c.Context, doctorOptions(c))
			if asJSON {
				err = printJSON(os.Stdout, checks)
			} else {
				err = doctor.Print(os.Stdout, checks)
			}
			if err == nil && doctor.Worst(checks) == doctor.Fail {
				return cli.Exit("weir does not work safely on this machine; see the failed checks", exitFailed)
			}
			return err
		},
	}
}

func doctorOptions(c *cli.Context) doctor.Options {
	cfg, err := loadConfig(c)
	o := doctor.Options{Config: configFile(c), ConfigErr: err}
	if err != nil {
		cfg, _ = config.Parse([]byte("{}\n")) // the defaults are what there is to look at
		if cfg == nil {
			cfg = &config.Config{StateDir: config.DefaultStateDir, RunDir: config.DefaultRunDir}
			cfg.Intercept.BPFFS = config.DefaultBPFFS
		}
	}
	cgroups := cfg.Intercept.Cgroups
	o.Probe = func() []doctor.Feature {
		var all []doctor.Feature
		for _, f := range redirect.Probe(cgroups) {
			all = append(all, doctor.Feature(f))
		}
		return all
	}
	o.Others = func() ([]doctor.Foreign, error) {
		found, err := redirect.Others(cgroups)
		var all []doctor.Foreign
		for _, f := range found {
			all = append(all, doctor.Foreign(f))
		}
		return all, err
	}
	o.StateDir, o.BPFFS, o.Cgroups, o.SecretFiles = cfg.StateDir, cfg.Intercept.BPFFS, cgroups, secretFiles(cfg)
	for _, i := range cfg.Identity.Issuers {
		o.Issuers = append(o.Issuers, doctor.Issuer{URL: i.Issuer, CAFile: i.CAFile})
	}
	for i := range cfg.Backends {
		o.Backends = append(o.Backends, doctor.Backend{Name: cfg.Backends[i].Name, Hosts: cfg.Backends[i].Names()})
	}
	o.Trusted = func(pem []byte) (bool, error) {
		store, err := ca.System()
		if err != nil {
			return false, err
		}
		return store.Trusts(pem), nil
	}
	return o
}

// secretFiles are the files that the configuration's references lead to and that
// are there.
func secretFiles(cfg *config.Config) []string {
	files := append([]string{}, cfg.Secrets.AgeIdentities...)
	for _, b := range cfg.Backends {
		for _, c := range b.Credentials {
			refs := []string{c.Password, c.PrivateKey, c.BearerToken}
			for _, h := range c.Headers {
				refs = append(refs, h)
			}
			for _, r := range refs {
				if path, ok := strings.CutPrefix(r, "file:"); ok {
					if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
						files = append(files, path)
					}
				}
			}
		}
	}
	return files
}
