package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/sqlparse"
)

// asWeir makes the test binary behave as weir.
const asWeir = "WEIR_TEST_AS_WEIR"

func TestMain(m *testing.M) {
	sqlparse.ChildMain() // parser children are this binary
	if os.Getenv(asWeir) != "" {
		main()
	}
	os.Exit(m.Run())
}

// weir runs the command line in a process of its own.
func weir(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asWeir+"=1", "WEIR_RUN_DIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit status says it
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestExitStatuses(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"version", 0, ""},
		{"--help", 0, ""},
		{"policy --help", 0, ""},
		{"completion bash", 0, ""},
		{"completion tcsh", 2, "bash, zsh, fish"},
		{"frobnicate", 2, "no command"},
		{"audit frobnicate", 2, "no command"},
		{"flows --frobnicate", 2, "--help"},
		{"flows -o xml", 2, "json"},
		{"exec", 2, "needs a command"},
		{"exec --token-file a --token-env B -- true", 2, "exclude"},
		{"exec -- /nonexistent/program", 127, "/nonexistent/program"},
		{"exec true", 1, "no weir agent answers"},
		{"status", 1, "no weir agent answers"},
		{"whoami", 1, "WEIR_RUN_DIR"},
		{"--config /nonexistent/weir.yaml agent", 1, "/nonexistent/weir.yaml"},
		{"audit verify --dir /nonexistent", 1, "/nonexistent"},
	} {
		_, stderr, code := weir(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("weir %s: exit %d, want %d; stderr %q", c.args, code, c.code, stderr)
		}
		if code != 0 && !strings.HasPrefix(stderr, "weir:") {
			t.Errorf("weir %s: stderr %q", c.args, stderr)
		}
	}
}

// TestHelp: every command says what it is for.
func TestHelp(t *testing.T) {
	for _, c := range app().Commands {
		if c.Usage == "" {
			t.Errorf("weir %s has no usage line", c.Name)
		}
		for _, sub := range c.Subcommands {
			if sub.Usage == "" {
				t.Errorf("weir %s %s has no usage line", c.Name, sub.Name)
			}
		}
	}
}

// TestExamples: what a stranger installs first checks clean, and the policy's own
// tests hold.
func TestExamples(t *testing.T) {
	for _, args := range []string{
		"config check ../../deploy/weir.example.yaml",
		"policy check ../../deploy/policy.example.yaml",
		"policy test ../../deploy/policy.example.yaml",
	} {
		if out, stderr, code := weir(t, strings.Fields(args)...); code != 0 {
			t.Errorf("weir %s: exit %d: %s%s", args, code, out, stderr)
		}
	}
}

func TestDemoPolicy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(demoPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, stderr, code := weir(t, "policy", "test", file); code != 0 {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
}

func TestCompletionNamesCommands(t *testing.T) {
	out, _, _ := weir(t, "--generate-bash-completion")
	for _, want := range []string{"agent", "exec", "audit"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q among %q", want, out)
		}
	}
}
