// Package doctor looks at a machine and says what stands in Weir's way: kernel
// features, cgroups, other eBPF users, privileges, certificates, clock, state,
// configuration. Each finding says what the lack costs and what to do.
//
// It changes nothing, needs no running agent, and opens no map and no backend
// connection. What only other packages can find out (eBPF, the configuration)
// comes in through Options.
package doctor

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Status is how a check came out.
type Status string

// Statuses.
const (
	OK   Status = "ok"
	Warn Status = "warn" // Weir works, but something is lost
	Fail Status = "fail" // Weir does not work, or not safely
)

// Check is one finding.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`         // what was found
	Cost   string `json:"cost,omitempty"` // what the lack costs
	Fix    string `json:"fix,omitempty"`  // what to do
}

// Feature is one eBPF feature that was tried (redirect.Probe).
type Feature struct {
	Name   string
	Err    error
	Cost   string
	Needed bool
}

// Foreign is a program of somebody else on one of our hooks (redirect.Others).
type Foreign struct {
	Cgroup  string
	Hook    string
	Program string
	ID      uint32
}

// Issuer is an identity provider of the configuration.
type Issuer struct {
	URL    string
	CAFile string // "" for the system's
}

// Backend is a backend of the configuration.
type Backend struct {
	Name  string
	Hosts []string // names under addresses and dial, without port
}

// Options say what to look at. Empty parts are left out, or reported as unknown
// where that matters.
type Options struct {
	Config    string // its path, for messages
	ConfigErr error  // why it does not load; the rest then describes defaults

	Probe  func() []Feature
	Others func() ([]Foreign, error)

	StateDir    string
	BPFFS       string
	Cgroups     []string // configured; empty: the defaults
	SecretFiles []string // file: references and age files of the configuration
	Issuers     []Issuer
	Backends    []Backend
	// Trusted reports whether this machine's programs trust a CA certificate
	// (PEM); nil: unknown.
	Trusted func(pem []byte) (bool, error)

	LookupHost func(ctx context.Context, host string) ([]string, error) // default: net.DefaultResolver
	Now        func() time.Time
}

// netTimeout bounds each question to the network.
const netTimeout = 5 * time.Second

// Run makes every check. It ends early when ctx does.
func Run(ctx context.Context, o Options) []Check {
	if o.LookupHost == nil {
		o.LookupHost = net.DefaultResolver.LookupHost
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	groups := []func(context.Context, *Options) []Check{
		checkConfig, checkKernel, checkCapabilities, checkFeatures, checkOthers, checkBPFFS, checkCgroups, checkNamespaces,
		checkLoginUID, checkPtrace, checkClock, checkState, checkKeys, checkAuthority, checkIssuers, checkBackends,
	}
	found := make([][]Check, len(groups))
	var wg sync.WaitGroup
	for i, g := range groups {
		wg.Go(func() { found[i] = g(ctx, &o) })
	}
	wg.Wait()
	var all []Check
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// Worst is the worst status of the checks.
func Worst(checks []Check) Status {
	worst := OK
	for _, c := range checks {
		if c.Status == Fail {
			return Fail
		}
		if c.Status == Warn {
			worst = Warn
		}
	}
	return worst
}

// Print writes the checks for people.
func Print(w io.Writer, checks []Check) error {
	by := map[Status]int{}
	var b strings.Builder
	for _, c := range checks {
		by[c.Status]++
		fmt.Fprintf(&b, "%-4s  %s: %s\n", c.Status, c.Name, printable(c.Detail))
		if c.Status == OK {
			continue
		}
		if c.Cost != "" {
			fmt.Fprintf(&b, "      costs: %s\n", printable(c.Cost))
		}
		if c.Fix != "" {
			fmt.Fprintf(&b, "      to do: %s\n", printable(c.Fix))
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %s, %s\n", by[OK], count(by[Warn], "warning", "warnings"), count(by[Fail], "failure", "failures"))
	_, err := io.WriteString(w, b.String())
	return err
}

// printable keeps what a name of a program or cgroup may hold from steering the
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func ok(name, format string, args ...any) Check {
	return Check{Name: name, Status: OK, Detail: fmt.Sprintf(format, args...)}
}

// count is "1 name" or "n names".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
