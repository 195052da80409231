// Package node runs a real weir agent for end-to-end tests and for the demo: the
// built binary, in a cgroup of its own, with its hooks on a cgroup that the
// caller's processes are put into, never on the root.
//
// It owns the agent's process, both cgroups, a private bpffs mount and the
// directory that it is given. Stop takes all of them out again.
package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/internal/testkit/host"
)

// Config says what node to run. All fields are required unless they say so.
type Config struct {
	Dir    string // configuration, state, socket, log; short: it holds a unix socket
	Weir   string // the weir binary
	Config string // what stands in weir.yaml besides node, state_dir, run_dir, intercept and policy_files
	Policy string // policy.yaml
	Env    []string
	// Intercept is added to the intercept section; may be empty.
	Intercept string
}

// Node is a running agent and the place for its clients.
type Node struct {
	Clients   string // cgroup for processes whose connections are taken
	ProxyPort uint16
	cfg       Config
	base      string // cgroup that holds Clients and the agent's
	bpffs     string

	mu    sync.Mutex
	agent *exec.Cmd
	ended chan struct{} // closed when agent has been waited for
}

// Waits for the agent; generous, because machines are busy.
const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
	poll         = 20 * time.Millisecond
)

// Start lays the node out and starts the agent; it returns when the agent is
// ready. On error nothing stays behind.
func Start(ctx context.Context, cfg Config) (_ *Node, err error) {
	n := &Node{cfg: cfg, bpffs: filepath.Join(cfg.Dir, "bpf")}
	defer func() {
		if err != nil {
			_ = n.Stop(context.Background())
		}
	}()
	root, err := host.CgroupRoot()
	if err != nil {
		return nil, err
	}
	n.base = filepath.Join(root, fmt.Sprintf("weir-node-%d-%06x", os.Getpid(), rand.Uint32()&0xffffff))
	n.Clients = filepath.Join(n.base, "clients")
	for _, d := range []string{n.Clients, n.agentCgroup(), n.bpffs, filepath.Join(cfg.Dir, "run")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := unix.Mount("bpf", n.bpffs, "bpf", 0, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mount a bpf file system on %s: %w", n.bpffs, err)
	}
	if n.ProxyPort, err = host.FreePort(); err != nil {
		return nil, err
	}
	if err := n.write(); err != nil {
		return nil, err
	}
	if err := n.StartAgent(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node) agentCgroup() string { return filepath.Join(n.base, "agent") }

// ConfigFile is the path of weir.yaml.
func (n *Node) ConfigFile() string { return filepath.Join(n.cfg.Dir, "weir.yaml") }

// PolicyFile is the path of policy.yaml, which the agent watches.
func (n *Node) PolicyFile() string { return filepath.Join(n.cfg.Dir, "policy.yaml") }

// StateDir is the agent's state directory.
func (n *Node) StateDir() string { return filepath.Join(n.cfg.Dir, "state") }

// LogFile is where the agent's log lines go.
func (n *Node) LogFile() string { return filepath.Join(n.cfg.Dir, "agent.log") }

func (n *Node) write() error {
	text := fmt.Sprintf(`node: test-node
state_dir: %s
run_dir: %s
intercept:
  cgroups: [%q]
  bpffs: %s
  proxy_port: %d
%spolicy_files: [%q]
%s`, n.StateDir(), filepath.Join(n.cfg.Dir, "run"), n.Clients, filepath.Join(n.bpffs, "weir"), n.ProxyPort, indent(n.cfg.Intercept), n.PolicyFile(), n.cfg.Config)
	if err := os.WriteFile(n.ConfigFile(), []byte(text), 0o644); err != nil {
		return err
	}
	return n.SetPolicy(n.cfg.Policy)
}

// SetPolicy replaces the policy file by rename, as editors and ConfigMaps do.
func (n *Node) SetPolicy(text string) error {
	tmp := n.PolicyFile() + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, n.PolicyFile())
}

func indent(s string) string {
	if s == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") + "\n"
}

// StartAgent starts the agent and waits until it is ready.
func (n *Node) StartAgent(ctx context.Context) error {
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.cfg.Weir, "--config", n.ConfigFile(), "agent")
	cmd.Env = append(os.Environ(), n.cfg.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := host.StartIn(n.agentCgroup(), cmd); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	ended := make(chan struct{})
	n.mu.Lock()
	n.agent, n.ended = cmd, ended
	n.mu.Unlock()
	go func() { _ = cmd.Wait(); close(ended) }() // ends with the process; Stop and Kill wait for it
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		if out, err := n.Weir(ctx, "status").CombinedOutput(); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return fmt.Errorf("the agent did not become ready: %s\n%s", bytes.TrimSpace(out), n.LogTail())
		}
		select {
		case <-ended:
			return fmt.Errorf("the agent ended while starting:\n%s", n.LogTail())
		case <-time.After(poll):
		}
	}
}

// LogTail is the end of the agent's log, for messages.
func (n *Node) LogTail() string {
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		return err.Error()
	}
	const most = 4000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// AgentPID is the process id of the agent.
func (n *Node) AgentPID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent.Process.Pid
}

// Kill ends the agent with SIGKILL and waits until it is gone. The hooks stay.
func (n *Node) Kill() { n.signal(syscall.SIGKILL) }

// Terminate asks the agent to drain and end, and waits for it. The hooks stay.
func (n *Node) Terminate() { n.signal(syscall.SIGTERM) }

func (n *Node) signal(s syscall.Signal) {
	n.mu.Lock()
	agent, ended := n.agent, n.ended
	n.mu.Unlock()
	if agent == nil {
		return
	}
	_ = agent.Process.Signal(s)
	select {
	case <-ended:
	case <-time.After(stopTimeout):
		_ = agent.Process.Kill()
		<-ended
	}
}

// Weir is a weir command that talks to this node's agent. It runs outside of the
// clients' cgroup; use In for a user's.
func (n *Node) Weir(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.cfg.Weir, append([]string{"--config", n.ConfigFile()}, args...)...)
	cmd.Env = append(os.Environ(), n.cfg.Env...)
	return cmd
}

// As is a command run by `weir exec` under the token in a file.
func (n *Node) As(ctx context.Context, tokenFile, name string, args ...string) *exec.Cmd {
	return n.Weir(ctx, append([]string{"exec", "--token-file", tokenFile, "--", name}, args...)...)
}

// Start starts a command in the clients' cgroup.
func (n *Node) Start(cmd *exec.Cmd) error { return host.StartIn(n.Clients, cmd) }

// Run runs a command in the clients' cgroup and returns both of its outputs.
func (n *Node) Run(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// Events asks `weir audit query -o json` with these flags.
func (n *Node) Events(ctx context.Context, flags ...string) ([]map[string]any, error) {
	out, err := n.Weir(ctx, append([]string{"audit", "query", "-o", "json"}, flags...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("weir audit query: %w: %s", err, exit.Stderr)
		}
		return nil, err
	}
	var events []map[string]any
	dec := json.NewDecoder(bytes.NewReader(out))
	for dec.More() {
		var e map[string]any
		if err := dec.Decode(&e); err != nil {
			return nil, fmt.Errorf("weir audit query printed no JSON line: %w", err)
		}
		events = append(events, e)
	}
	return events, nil
}

// Stop ends the agent and takes out everything that the node made outside of its
// directory: hooks, pins, mount, cgroups.
func (n *Node) Stop(ctx context.Context) error {
	n.Terminate()
	var errs []error
	if _, err := os.Stat(n.ConfigFile()); err == nil {
		if out, err := n.Weir(ctx, "agent", "--uninstall").CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("weir agent --uninstall: %w: %s", err, out))
		}
	}
	if err := unix.Unmount(n.bpffs, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("unmount %s: %w", n.bpffs, err))
	}
	if n.base != "" {
		errs = append(errs, removeCgroups(n.base))
	}
	return errors.Join(errs...)
}

// removeCgroups ends what still runs below dir and removes it, deepest first.
func removeCgroups(dir string) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	var errs []error
	for i := len(dirs) - 1; i >= 0; i-- {
		var err error
		for end := time.Now().Add(stopTimeout); time.Now().Before(end); time.Sleep(poll) {
			if err = os.Remove(dirs[i]); err == nil || errors.Is(err, os.ErrNotExist) {
				err = nil
				break
			}
			procs, _ := os.ReadFile(filepath.Join(dirs[i], "cgroup.procs"))
			for pid := range strings.FieldsSeq(string(procs)) {
				if p, e := strconv.Atoi(pid); e == nil && p != os.Getpid() {
					_ = syscall.Kill(p, syscall.SIGKILL)
				}
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cgroup %s stays behind: %w", dirs[i], err))
		}
	}
	return errors.Join(errs...)
}
