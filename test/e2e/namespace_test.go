package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/testkit"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// Where the server of TestSecondNamespace listens: an address that exists in that
// namespace only.
const (
	netnsAddr = "10.99.7.1"
	netnsPort = 25432
)

func namespaces(t *testing.T) int {
	t.Helper()
	out, err := w.Node.Weir(t.Context(), "status", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Networks []json.RawMessage `json:"network_namespaces"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		t.Fatal(err)
	}
	return len(status.Networks)
}

// TestSecondNamespace: client and server are in a network namespace that the
// agent has never seen; the server sees the connection come from there.
func TestSecondNamespace(t *testing.T) {
	ns := testkit.NetNS(t)
	if err := ns.Do(func() error {
		out, err := exec.Command("ip", "address", "add", netnsAddr+"/32", "dev", "lo").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	server := postgres.For(t, postgres.Config{Shop: true, Port: netnsPort, Listen: []netip.Addr{netip.MustParseAddr(netnsAddr)},
		HBA: "host all all all trust", Prepare: func(*exec.Cmd) error { return enter(ns) }})

	before := namespaces(t)
	sleeper := exec.Command("sleep", "infinity")
	if err := testkit.StartIn(w.Node.Clients, ns, sleeper); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
	eventually(t, "the new namespace is served", func() bool { return namespaces(t) == before+1 })

	in := func(who string, args ...string) (string, error) {
		var out strings.Builder
		cmd := command(t.Context(), who, "psql", append([]string{"-X", "-At", "-h", netnsAddr, "-p", fmt.Sprint(netnsPort), "-d", "shop"}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := testkit.RunIn(w.Node.Clients, ns, cmd)
		return out.String(), err
	}
	out, err := in("ann", "-c", "SELECT count(*) FROM shop.orders", "-c", "SELECT inet_client_addr()", "-c", `\conninfo`)
	if err != nil {
		t.Fatalf("%v: %s\nserver: %s", err, out, server.LogFile)
	}
	holds(t, out, "100\n"+netnsAddr, `on host "`+netnsAddr+`"`)
	if out, err := in("", "-c", "SELECT 1"); err == nil || !strings.Contains(out, "weir login") {
		t.Errorf("nobody: %v: %s", err, out)
	}
	if out, err := in("ann", "-c", "DROP TABLE shop.orders"); err == nil || !strings.Contains(out, "no drops") {
		t.Errorf("DROP: %v: %s", err, out)
	}
	// While the agent is dead nothing goes past it here either.
	w.Node.Kill()
	out, err = in("", "-c", "SELECT 1")
	if err == nil || !strings.Contains(out, "Connection refused") {
		t.Errorf("agent dead: %v: %s", err, out)
	}
	if err := w.Node.StartAgent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := in("ann", "-c", "SELECT 1"); err != nil {
		t.Errorf("agent back: %v: %s", err, out)
	}
}

// enter moves the calling thread into the namespace.
func enter(ns *testkit.Namespace) error {
	fd := -1
	if err := ns.Do(func() error {
		var err error
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	}); err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}
