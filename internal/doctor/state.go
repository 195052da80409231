package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func checkConfig(_ context.Context, o *Options) []Check {
	if o.Config == "" {
		return nil
	}
	if o.ConfigErr == nil {
		return []Check{ok("configuration", "%s is valid", o.Config)}
	}
	return []Check{{Name: "configuration", Status: Fail, Detail: o.ConfigErr.Error(), Cost: "the agent does not start; what follows describes the defaults", Fix: "weir config check " + o.Config}}
}

// Free space in the state directory, bytes. An audit record takes about 1 KiB, so
// 1 GiB is a million actions; what cannot be recorded is refused.
const (
	lowSpace  = 1 << 30
	leastFree = 64 << 20
)

func checkState(_ context.Context, o *Options) []Check {
	if o.StateDir == "" {
		return nil
	}
	const name = "state directory"
	at := o.StateDir
	if _, err := os.Stat(at); errors.Is(err, fs.ErrNotExist) {
		at = filepath.Dir(at)
		if _, err := os.Stat(at); err != nil {
			return []Check{{Name: name, Status: Fail, Detail: fmt.Sprintf("neither %s nor the folder above is there", o.StateDir), Cost: "the agent does not start", Fix: "mkdir -p " + at}}
		}
	}
	f, err := os.CreateTemp(at, ".weir-doctor-*")
	if err != nil {
		return []Check{{Name: name, Status: Fail, Detail: err.Error(), Cost: "nothing can be recorded, so every action is refused", Fix: "make it writable for the agent's user, or set state_dir"}}
	}
	f.Close()
	_ = os.Remove(f.Name())
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return []Check{{Name: name, Status: Warn, Detail: err.Error()}}
	}
	return []Check{space(name, o.StateDir, st.Bavail*uint64(st.Bsize))}
}

func space(name, dir string, free uint64) Check {
	detail := fmt.Sprintf("%s is writable, %d MiB free", dir, free>>20)
	switch {
	case free < leastFree:
		return Check{Name: name, Status: Fail, Detail: detail, Cost: "when it is full nothing can be recorded, so every action is refused", Fix: "make room or move state_dir"}
	case free < lowSpace:
		return Check{Name: name, Status: Warn, Detail: detail, Cost: "when it is full nothing can be recorded, so every action is refused", Fix: "make room or move state_dir; shorten audit.retention"}
	}
	return ok(name, "%s", detail)
}

// checkKeys looks at the modes of private keys and of secret files.
func checkKeys(_ context.Context, o *Options) []Check {
	const name = "secret files"
	var out []Check
	seen := 0
	look := func(path string, key bool) {
		info, err := os.Stat(path)
		switch {
		case err != nil && !key:
			out = append(out, Check{Name: name, Status: Fail, Detail: err.Error(), Cost: "backends that use it cannot be signed in to", Fix: "put it there, or correct its reference in the configuration"})
		case err != nil:
		default:
			seen++
			if info.Mode().Perm()&0o077 != 0 {
				status := Warn // a secret's folder may still keep others out (Kubernetes)
				if key {
					status = Fail
				}
				out = append(out, Check{Name: name, Status: status, Detail: fmt.Sprintf("%s has mode %04o", path, info.Mode().Perm()), Cost: "others on this machine may read or replace it", Fix: "chmod 600 " + path})
			}
		}
	}
	if o.StateDir != "" {
		keys, _ := filepath.Glob(filepath.Join(o.StateDir, "keys", "*.key"))
		for _, k := range keys {
			look(k, true)
		}
	}
	for _, f := range o.SecretFiles {
		look(f, false)
	}
	if len(out) == 0 && seen > 0 {
		return []Check{ok(name, "%s, readable for their owner only", count(seen, "file", "files"))}
	}
	return out
}

// expiresSoon is when an authority's end is worth a warning.
const expiresSoon = 60 * 24 * time.Hour

func checkAuthority(_ context.Context, o *Options) []Check {
	if o.StateDir == "" {
		return nil
	}
	const name = "weir's CA"
	path := filepath.Join(o.StateDir, "keys", "ca.crt")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []Check{ok(name, "not made yet: the agent's first start does")}
	}
	if err != nil {
		return []Check{{Name: name, Status: Fail, Detail: err.Error()}}
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return []Check{{Name: name, Status: Fail, Detail: path + " is no PEM certificate", Cost: "the agent does not start", Fix: "put the file back, or remove it to have it made anew from ca.key"}}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return []Check{{Name: name, Status: Fail, Detail: path + ": " + err.Error(), Cost: "the agent does not start", Fix: "put the file back, or remove it to have it made anew from ca.key"}}
	}
	out := []Check{authority(name, cert.NotAfter, o.Now())}
	if o.Trusted == nil {
		return out
	}
	trusted, err := o.Trusted(b)
	switch {
	case err != nil:
		return append(out, Check{Name: "trust", Status: Warn, Detail: err.Error(), Cost: "clients that verify certificates may refuse connections through Weir"})
	case trusted:
		return append(out, ok("trust", "this machine trusts weir's CA"))
	}
	return append(out, Check{Name: "trust", Status: Warn, Detail: "this machine does not trust weir's CA",
		Cost: "clients that verify certificates (sslmode=verify-full, HTTPS) refuse connections through Weir; others are not affected", Fix: "weir trust install"})
}

func authority(name string, end, now time.Time) Check {
	day := end.Format(time.DateOnly)
	switch left := end.Sub(now); {
	case left <= 0:
		return Check{Name: name, Status: Fail, Detail: "expired on " + day, Cost: "clients that verify certificates refuse every connection", Fix: "move ca.crt away, restart the agent, `weir trust install`"}
	case left < expiresSoon:
		return Check{Name: name, Status: Warn, Detail: "expires on " + day, Cost: "clients that verify certificates refuse every connection then", Fix: "move ca.crt away, restart the agent, `weir trust install`"}
	}
	return ok(name, "valid until %s", day)
}

// oneLine is an error on one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
