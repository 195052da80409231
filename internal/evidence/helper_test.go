package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// node is a state directory with a sealed log that the test writes.
type node struct {
	t       testing.TB
	dir     string
	key     auditlog.PublicKey
	private ed25519.PrivateKey
	leaves  [][]byte
	seq     uint64
	now     time.Time
	events  []auditlog.Event
}

var start = time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)

func newNode(t testing.TB) *node {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	return &node{t: t, dir: t.TempDir(), private: private, now: start,
		key: auditlog.PublicKey{Name: "node-a/weir-spool", Key: private.Public().(ed25519.PublicKey)}}
}

// log appends events, a second apart unless they have a time.
func (n *node) log(events ...auditlog.Event) {
	for _, ev := range events {
		n.seq++
		n.now = n.now.Add(time.Second)
		ev.V, ev.Seq, ev.Node = auditlog.Version, n.seq, "node-a"
		if ev.Time.IsZero() {
			ev.Time = n.now
		}
		b, err := auditlog.AppendEventBody(auditlog.AppendEventHead(nil, ev.Seq, ev.Time), &ev)
		if err != nil {
			n.t.Fatal(err)
		}
		leaf, err := auditlog.Leaf(b)
		if err != nil {
			n.t.Fatal(err)
		}
		if len(leaf) != len(b) {
			n.write(auditlog.LongFile(b), b)
		}
		n.leaves = append(n.leaves, leaf)
		n.events = append(n.events, ev)
	}
}

func (n *node) write(name string, b []byte) {
	path := filepath.Join(auditlog.TilesDir(n.dir), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func tileName(level string, i, width int) string {
	name := fmt.Sprintf("%03d", i%1000)
	for i /= 1000; i > 0; i /= 1000 {
		name = fmt.Sprintf("x%03d/%s", i%1000, name)
	}
	if width < 256 {
		name += fmt.Sprintf(".p/%d", width)
	}
	return "tile/" + level + "/" + name
}

// seal writes the tiles of all events so far, and keeps the head if asked.
func (n *node) seal(keep bool) {
	var tree auditlog.TreeHash
	var level []auditlog.Hash
	for _, l := range n.leaves {
		h := auditlog.LeafHash(l)
		level = append(level, h)
		tree.Add(h)
	}
	for i := 0; i*256 < len(n.leaves); i++ {
		part := n.leaves[i*256 : min((i+1)*256, len(n.leaves))]
		var b []byte
		for _, l := range part {
			b = append(append(b, byte(len(l)>>8), byte(len(l))), l...)
		}
		n.write(tileName("entries", i, len(part)), b)
	}
	for l := 0; len(level) > 0; l++ {
		var up []auditlog.Hash
		for i := 0; i*256 < len(level); i++ {
			part := level[i*256 : min((i+1)*256, len(level))]
			var b []byte
			var sum auditlog.TreeHash
			for _, h := range part {
				b = append(b, h[:]...)
				sum.Add(h)
			}
			n.write(tileName(fmt.Sprint(l), i, len(part)), b)
			if len(part) == 256 {
				up = append(up, sum.Root())
			}
		}
		level = up
	}
	root := tree.Root()
	key := n.key.ForTiles()
	text := fmt.Appendf(nil, "%s\n%d\n%s\n", key.Name, len(n.leaves), base64.StdEncoding.EncodeToString(root[:]))
	note := append(text, auditlog.FormatSignature(key, ed25519.Sign(n.private, text))...)
	n.write("checkpoint", note)
	if keep {
		line, _ := json.Marshal(auditlog.KeptHead{Time: n.now, Note: string(note)})
		f, err := os.OpenFile(auditlog.HeadsFile(n.dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			n.t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(append(line, '\n')); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) config(from, to time.Time) Config {
	return Config{StateDir: n.dir, Key: n.key, Period: Period{from, to}, Framework: "iso27001-2022", Temp: n.t.TempDir(), Version: "test",
		Sign:     func(text []byte) ([]byte, error) { return ed25519.Sign(n.private, text), nil },
		Recorded: "no: this is a test", Now: func() time.Time { return start.Add(24 * time.Hour) }}
}

func (n *node) export(c Config) []byte {
	n.t.Helper()
	var b bytes.Buffer
	if _, _, err := Export(n.t.Context(), c, &b); err != nil {
		n.t.Fatal(err)
	}
	return b.Bytes()
}

func verify(t testing.TB, pack []byte, key *auditlog.PublicKey) *Report {
	t.Helper()
	r, err := Verify(t.Context(), bytes.NewReader(pack), int64(len(pack)), key, "test")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func principal(user string, groups ...string) *auditlog.Principal {
	return &auditlog.Principal{Issuer: "https://id.example", Subject: "sub-" + user, User: user + "@example.com", Groups: groups, Kind: "human", TokenID: "t-" + user}
}

const policyV1 = `policies:
  - name: orders
    backends: [orders]
    rules:
      - name: developers read the shop
        groups: [developer]
        actions: [connect, select]
        effect: allow
      - name: changes need a second person
        groups: [developer]
        actions: [update, delete]
        effect: approve
        approve: {groups: [dba], count: 1, proof: idp, require_reason: true}
    masks:
      - {name: cards, columns: [shop.customers.card], with: last4}
`

func policyLoad(text string) auditlog.Event {
	return auditlog.Event{Kind: auditlog.PolicyLoad, Policy: policy.Revision([]policy.File{{Name: "orders.yaml", Data: []byte(text)}}),
		PolicyFiles: []auditlog.PolicyFile{{Name: "orders.yaml", Text: text}}}
}

// world writes a log of a morning: sign-ins, queries with masks, an approval with a
// real token, refusals, a bypass, a crash and a restart, hostile text.
func world(t testing.TB) *node {
	n := newNode(t)
	n.log(auditlog.Event{Kind: auditlog.AgentStart, Reason: "weir test"}, policyLoad(policyV1))
	ana, dora := principal("ana", "developer"), principal("dora", "dba")
	n.log(auditlog.Event{Kind: auditlog.IdentityBind, Session: "s1", Principal: ana},
		auditlog.Event{Kind: auditlog.FlowOpen, Flow: "f1", Session: "s1", Principal: ana, Backend: "orders", Protocol: "postgres", Destination: "10.0.0.5:5432", Database: "shop",
			Process: &auditlog.Process{PID: 42, Exe: "/usr/bin/psql", Comm: "psql", UID: 1000}})
	n.seal(true)
	n.now = start.Add(time.Hour)
	flow := func(kind auditlog.Kind, who *auditlog.Principal) auditlog.Event {
		return auditlog.Event{Kind: kind, Flow: "f1", Session: "s1", Principal: who, Backend: "orders", Protocol: "postgres", Destination: "10.0.0.5:5432", Database: "shop", Login: "app"}
	}
	for i := range 30 {
		in := flow(auditlog.ActionEvent, ana)
		in.Action = &auditlog.Action{ID: fmt.Sprint("a", i), Phase: auditlog.PhaseIntent, Verbs: []string{"select"}, Resources: []string{"shop.customers"},
			Text: fmt.Sprintf("select name, card from shop.customers where id = %d", i)}
		in.Verdict, in.Rule = "allow", "developers read the shop"
		if i == 7 {
			in.Action.Text = "=cmd|' /C calc'!A0 \u202egnp.exe\x00 <script>alert(1)</script> \"quoted\"; \n+1+1"
		}
		if i == 9 {
			in.Action.Text = string(bytes.Repeat([]byte("x"), 70000)) // longer than a leaf
		}
		out := flow(auditlog.ActionEvent, ana)
		out.Action = &auditlog.Action{ID: fmt.Sprint("a", i), Phase: auditlog.PhaseOutcome}
		out.Result = &auditlog.Result{Status: "ok", Rows: 3, Bytes: 120, DurationUS: 900}
		out.Masks = []auditlog.Mask{{Column: "shop.customers.card", Method: "last4", Source: "origin", Count: 3}}
		n.log(in, out)
	}
	n.seal(true)
	n.approve(flow, ana, dora)
	no := flow(auditlog.ActionEvent, ana)
	no.Action = &auditlog.Action{ID: "b1", Phase: auditlog.PhaseIntent, Verbs: []string{"drop"}, Resources: []string{"shop.customers"}, Text: "drop table shop.customers"}
	no.Verdict, no.Reason, no.Result = "deny", "no rule allows drop on shop.customers", &auditlog.Result{Status: auditlog.StatusDenied}
	refused := flow(auditlog.FlowRefused, nil)
	refused.Flow, refused.Session, refused.Verdict, refused.Reason = "f2", "", "deny", "nobody is signed in"
	n.log(no, refused,
		auditlog.Event{Kind: auditlog.BypassBlocked, Destination: "127.0.0.1:15001", Verdict: "deny", Reason: "a connection from 127.0.0.1:9 to the proxy port itself", Process: &auditlog.Process{PID: 9, Comm: "nc", UID: 1001}},
		auditlog.Event{Kind: auditlog.Gap, Gap: &auditlog.GapInfo{Cause: auditlog.GapCrash, From: n.now, To: n.now.Add(2 * time.Second), After: n.seq}, Reason: "the agent ended without closing the log"},
		auditlog.Event{Kind: auditlog.AgentStart, Reason: "weir test"},
		policyLoad(policyV1+"# second\n"),
		auditlog.Event{Kind: auditlog.FlowOpen, Flow: "f3", Session: "s1", Principal: ana, Backend: "orders", Protocol: "postgres", Destination: "10.0.0.5:5432", Database: "shop"},
		flow(auditlog.FlowClose, ana))
	back := flow(auditlog.ActionEvent, ana)
	back.Flow, back.Time = "f3", n.now.Add(-time.Minute)
	back.Action = &auditlog.Action{ID: "c1", Phase: auditlog.PhaseIntent, Verbs: []string{"select"}, Resources: []string{"shop.orders"}, Text: "select 1"}
	back.Verdict = "allow"
	n.log(back)
	account := func(scope string, difference int64) auditlog.Event {
		return auditlog.Event{Kind: auditlog.CompletenessEvent, Completeness: &auditlog.Completeness{Scope: scope, Run: 3, From: start, To: n.now, Counting: start,
			Backends: []auditlog.FlowCount{{Backend: "orders", Kernel: auditlog.KernelFlows{Redirected: 3, HandedOver: 3}, Opened: 2, Refused: 1, Difference: difference}}}}
	}
	n.log(account(auditlog.ScopeBefore, 0), account(auditlog.ScopeRun, 1), account(auditlog.ScopeStop, 2))
	n.now = start.Add(3 * time.Hour)
	n.log(auditlog.Event{Kind: auditlog.AgentStop})
	n.seal(true)
	return n
}

// approve writes a request and its approval, with a token as a provider signs it.
func (n *node) approve(flow func(auditlog.Kind, *auditlog.Principal) auditlog.Event, ana, dora *auditlog.Principal) {
	doc := `{"weir_approval":1,"id":"req-1","scope":{"actions":[{"text":"update shop.orders set state = 'paid' where id = 7","verbs":["update"],"resources":["shop.orders"]}]}}`
	sum := sha256.Sum256([]byte(doc))
	digest := fmt.Sprintf("sha256:%x", sum)
	key := jose.JSONWebKey{Key: n.private, KeyID: "k1", Algorithm: "EdDSA", Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	claims, _ := json.Marshal(map[string]any{"iss": dora.Issuer, "sub": dora.Subject, "nonce": base64.RawURLEncoding.EncodeToString(sum[:])})
	jws, err := signer.Sign(claims)
	if err != nil {
		n.t.Fatal(err)
	}
	token, _ := jws.CompactSerialize()
	keys, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	ask := flow(auditlog.ApprovalRequest, ana)
	ask.Rule, ask.Verdict = "changes need a second person", "approve"
	ask.Approval = &auditlog.Approval{ID: "req-1", Digest: digest, Requester: ana.User, Document: doc, Status: "pending"}
	yes := flow(auditlog.ApprovalDecide, dora)
	yes.Session, yes.Rule = "s2", "changes need a second person"
	yes.Approval = &auditlog.Approval{ID: "req-1", Digest: digest, Requester: ana.User, Approvers: []string{dora.User}, Decided: "approved", Justification: "ticket OPS-7, +1", Proof: "idp",
		Status: "approved", Token: token, Keys: keys}
	in := flow(auditlog.ActionEvent, ana)
	in.Action = &auditlog.Action{ID: "u1", Phase: auditlog.PhaseIntent, Verbs: []string{"update"}, Resources: []string{"shop.orders"}, Text: "update shop.orders set state = 'paid' where id = 7"}
	in.Verdict, in.Rule = "approve", "changes need a second person"
	in.Approval = &auditlog.Approval{ID: "req-1", Digest: digest, Requester: ana.User, Approvers: []string{dora.User}, Decided: "approved", Proof: "idp"}
	out := flow(auditlog.ActionEvent, ana)
	out.Action, out.Result = &auditlog.Action{ID: "u1", Phase: auditlog.PhaseOutcome}, &auditlog.Result{Status: "ok", Rows: 1}
	n.log(ask, yes, in, out)
}
