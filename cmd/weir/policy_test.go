package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
)

// fakeSQL reads "verb resource" statements parted by semicolons.
func fakeSQL(context.Context, []string, func(string)) (policy.Analyser, func(), error) {
	return func(_, sql string) ([]policy.Analysed, error) {
		if sql == "broken" {
			return nil, errors.New("it does not parse")
		}
		var list []policy.Analysed
		for _, s := range strings.Split(sql, ";") {
			verb, resource, _ := strings.Cut(strings.TrimSpace(s), " ")
			list = append(list, policy.Analysed{Action: flow.Action{Text: s, Accesses: []flow.Access{{Verb: flow.Verb(verb), Resource: resource}}}})
		}
		return list, nil
	}, func() {}, nil
}

// runCLI runs policy and config commands as main would.
func runCLI(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &cli.App{Name: "weir", Writer: &out, ErrWriter: &errs, ExitErrHandler: func(*cli.Context, error) {}, OnUsageError: usageError,
		Flags:    []cli.Flag{&cli.StringFlag{Name: "config", Value: filepath.Join(t.TempDir(), "none.yaml")}},
		Commands: []*cli.Command{policyCommand(fakeSQL), configCommand()}}
	for _, c := range a.Commands {
		prepare(c)
	}
	err := a.RunContext(t.Context(), append([]string{"weir"}, args...))
	var coded cli.ExitCoder
	switch {
	case errors.As(err, &coded):
		code = coded.ExitCode()
	case err != nil:
		code = exitFailed
	}
	if err != nil && err.Error() != "" {
		errs.WriteString(prefixed(err.Error()) + "\n")
	}
	return out.String(), errs.String(), code
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const cliPolicy = `policies:
  - name: p
    backends: [db]
    rules:
      - {name: readers, groups: [dev], actions: [connect, select], resources: ["shop.*"], effect: allow}
      - {name: loose, actions: [drop], resources: ["tmp.*"], effect: allow}
    tests:
      - {user: ann, groups: [dev], sql: "select shop.orders", expect: allow, rule: readers}
`

const cliConfig = `backends:
  - {name: db, protocol: postgres, addresses: ["127.0.0.1:5432"]}
policy_files: [%s]
`

func TestPolicyCheck(t *testing.T) {
	good := writeFile(t, "good.yaml", cliPolicy)
	bad := writeFile(t, "bad.yaml", "policies:\n  - nam: p\n")
	conf := writeFile(t, "weir.yaml", strings.ReplaceAll(cliConfig, "%s", good))

	out, errs, code := runCLI(t, "policy", "check", good)
	if code != 0 || !strings.HasPrefix(out, "ok: 1 policy, 2 rules, 0 masks, 1 test; revision sha256:") ||
		!strings.HasPrefix(errs, "warning: "+good+`:6: rule "loose": its resources say nothing about drop on`) {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if _, errs, code := runCLI(t, "policy", "check", "--strict", good); code != 1 || !strings.Contains(errs, "1 warning") {
		t.Errorf("%d %s", code, errs)
	}
	if out, _, code := runCLI(t, "--config", conf, "policy", "check"); code != 0 || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("%d %s", code, out)
	}
	if _, errs, code := runCLI(t, "policy", "check", good, bad); code != 1 || errs != bad+":2: unknown key \"nam\" in policies[0]; did you mean \"name\"?\n"+
		bad+":2: this policy has no name; add name: with words that people will see when it decides\n" {
		t.Errorf("%d %s", code, errs)
	}
	out, _, code = runCLI(t, "policy", "check", "-o", "json", bad)
	var report struct {
		OK       bool
		Problems []struct {
			File string
			Line int
			What string
			Fix  string
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 1 || report.OK || len(report.Problems) != 2 || report.Problems[0].Line != 2 || report.Problems[0].File != bad {
		t.Errorf("%d %v %s", code, err, out)
	}
	if _, errs, code := runCLI(t, "policy", "check", "/none"); code != 1 || !strings.Contains(errs, "/none cannot be read") {
		t.Errorf("%d %s", code, errs)
	}
	if _, errs, code := runCLI(t, "policy", "check"); code != exitUsage || !strings.Contains(errs, "name policy files") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestPolicyTest(t *testing.T) {
	good := writeFile(t, "good.yaml", cliPolicy)
	failing := writeFile(t, "failing.yaml", cliPolicy+"      - {user: bob, sql: \"drop tmp.x; unknown\", expect: allow}\n      - {user: bob, sql: \"unknown\", expect: deny}\n")
	unread := writeFile(t, "unread.yaml", cliPolicy+"      - {user: bob, sql: broken, expect: deny}\n")
	if out, _, code := runCLI(t, "policy", "test", good); code != 0 || !strings.Contains(out, "ok: 1 test") {
		t.Errorf("%d %s", code, out)
	}
	out, errs, code := runCLI(t, "policy", "test", failing)
	if code != 1 || !strings.Contains(out, "FAIL") || !strings.Contains(errs, "1 of 3 tests failed") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if out, _, code := runCLI(t, "policy", "test", unread); code != 1 || !strings.Contains(out, "cannot be analysed: it does not parse") {
		t.Errorf("%d %s", code, out)
	}
	if out, _, code := runCLI(t, "policy", "test", "-o", "json", failing); code != 1 || !json.Valid([]byte(out)) || !strings.Contains(out, `"failed": 1`) {
		t.Errorf("%d %s", code, out)
	}
	if out, _, code := runCLI(t, "policy", "test", writeFile(t, "e.yaml", "policies: []\n")); code != 0 || !strings.Contains(out, "no tests") {
		t.Errorf("%d %s", code, out)
	}
}

func TestPolicyExplain(t *testing.T) {
	good := writeFile(t, "good.yaml", cliPolicy)
	out, errs, code := runCLI(t, "policy", "explain", "--user", "ann", "--groups", "dev,ops", "--backend", "db", "--sql", "select shop.orders; select hr.x", good)
	for _, want := range []string{"statement 1 of 2", `allow: rule "readers" allows it`, `deny: no rule allows select on hr.x at backend "db"`, "it is about shop.*"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d: no %q in\n%s%s", code, want, out, errs)
		}
	}
	out, _, code = runCLI(t, "policy", "explain", "-o", "json", "--backend", "db", "--action", "drop tmp.x", good)
	var list []struct {
		Verdict  string
		Rule     string
		Accesses []struct{ Rules []struct{ Why string } }
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || list[0].Verdict != "allow" || list[0].Rule != "loose" || len(list[0].Accesses[0].Rules) != 2 {
		t.Errorf("%d %v %s", code, err, out)
	}
	for _, args := range [][]string{
		{"--backend", "db"}, {"--backend", "db", "--sql", "x", "--action", "select a.b"}, {"--action", "select a.b"},
		{"--backend", "db", "--groups", "x", "--action", "select a.b"}, {"--backend", "db", "--kind", "robot", "--action", "select a.b"},
		{"--backend", "db", "--action", "slect a.b"}, {"--backend", "db", "--action", "select a.b", "-o", "xml"},
	} {
		if _, errs, code := runCLI(t, append(append([]string{"policy", "explain"}, args...), good)...); code != exitUsage && !strings.Contains(errs, "Required flag") {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
	if _, errs, code := runCLI(t, "policy", "explain", "--backend", "db", "--sql", "broken", good); code != 1 || !strings.Contains(errs, "it does not parse") {
		t.Errorf("%d %s", code, errs)
	}
}

const maskedPolicy = `policies:
  - name: p
    backends: [db]
    rules:
      - {name: readers, actions: [connect, select, insert], resources: ["shop.*"], effect: allow}
    masks:
      - {name: cards, columns: ["shop.payments.card_number"], with: last4}
      - {name: mail, columns: ["shop.payments.email"], with: hash, predicates: {budget: 20, per: 1h}}
    tests:
      - {user: u, sql: "SELECT id, card_number AS c, lower(card_number) FROM shop.payments", expect: allow, masks: {id: none, c: last4, 3: redact}}
      - {user: u, sql: "SELECT 1 FROM shop.payments WHERE card_number LIKE '4%'", expect: deny, rule: cards, refused: "WHERE"}
      - {user: u, sql: "SELECT 1 FROM shop.payments WHERE email LIKE 'a%'", expect: allow}
      - {user: u, sql: "INSERT INTO shop.copies (c) SELECT lower(card_number) FROM shop.payments", expect: deny, rule: cards, refused: "would store"}
`

// TestPolicyMasks is what masks do, with the real parser and no database.
func TestPolicyMasks(t *testing.T) {
	file := writeFile(t, "p.yaml", maskedPolicy)
	if out, errs, code := weir(t, "policy", "test", file); code != 0 || !strings.Contains(out, "ok: 4 tests") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	wrong := writeFile(t, "wrong.yaml", strings.ReplaceAll(maskedPolicy, "c: last4", "c: none"))
	if out, _, code := weir(t, "policy", "test", wrong); code != 1 || !strings.Contains(out, `by mask "cards"; the test wants none`) {
		t.Errorf("%d\n%s", code, out)
	}
	explain := func(sql string, args ...string) (string, int) {
		out, errs, code := weir(t, append(append([]string{"policy", "explain", "--user", "u", "--backend", "db", "--sql", sql}, args...), file)...)
		return out + errs, code
	}
	out, code := explain("SELECT card_number AS c FROM shop.payments WHERE email IN ('a', 'b')")
	for _, want := range []string{
		`allow: rule "readers" allows it`,
		`column 1 "c": shop.payments.card_number -> shown but for all digits before the last four by mask "cards"`,
		"shop.payments.email is compared for equality (WHERE), 2 values",
		`takes 2 of the 20 tests of shop.payments.email that mask "mail" gives each person in 1h`,
		"without --schema FILE",
	} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d: no %q in\n%s", code, want, out)
		}
	}
	if out, code := explain("SELECT 1 FROM shop.payments ORDER BY card_number"); code != 0 || !strings.HasPrefix(out, `deny: mask "cards" hides shop.payments.card_number from you`) {
		t.Errorf("%d\n%s", code, out)
	}
	out, code = explain("SELECT * FROM shop.payments", "-o", "json")
	var list []struct {
		Verdict string
		Masked  struct {
			Columns []struct {
				Position int
				Source   string
			}
			Notes []string
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || list[0].Verdict != "allow" ||
		list[0].Masked.Columns[0].Position != 0 || list[0].Masked.Columns[0].Source != policy.SourceUnknown || len(list[0].Masked.Notes) != 1 {
		t.Errorf("%d %v\n%s", code, err, out)
	}
	if out, code := explain("SELECT 1", "--schema", "/nonexistent.sql"); code != 1 || !strings.Contains(out, "/nonexistent.sql") {
		t.Errorf("%d\n%s", code, out)
	}
}

// The example's cases hold.
func TestExamplePolicy(t *testing.T) {
	if out, errs, code := weir(t, "policy", "test", "../../deploy/policy.example.yaml"); code != 0 {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
}

func TestConfigCheck(t *testing.T) {
	good := writeFile(t, "weir.yaml", strings.ReplaceAll(cliConfig, "%s", "/etc/weir/policy.yaml"))
	bad := writeFile(t, "bad.yaml", "backend: []\nnode: [hunter2]\n")
	if out, _, code := runCLI(t, "config", "check", good); code != 0 || !strings.HasPrefix(out, "ok: ") || !strings.Contains(out, "1 backend, 0 issuers") {
		t.Errorf("%d %s", code, out)
	}
	if out, _, code := runCLI(t, "--config", good, "config", "check"); code != 0 || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("%d %s", code, out)
	}
	_, errs, code := runCLI(t, "config", "check", bad)
	if want := bad + ":1: unknown key \"backend\" in the file; did you mean \"backends\"?\n" + bad + ":2: node must be a text\n"; code != 1 || errs != want {
		t.Errorf("%d\n%s", code, errs)
	}
	if out, _, code := runCLI(t, "config", "check", "-o", "json", bad); code != 1 || !json.Valid([]byte(out)) || !strings.Contains(out, `"line": 2`) {
		t.Errorf("%d %s", code, out)
	}
	if _, _, code := runCLI(t, "config", "check", good, bad); code != exitUsage {
		t.Error(code)
	}
	if out, _, code := runCLI(t, "config", "show", good); code != 0 || !strings.Contains(out, "proxy_port: 15001") {
		t.Errorf("%d %s", code, out)
	}
	if out, _, code := runCLI(t, "config", "show", "-o", "json", good); code != 0 || !json.Valid([]byte(out)) || !strings.Contains(out, `"proxy_port": 15001`) {
		t.Errorf("%d %s", code, out)
	}
}
