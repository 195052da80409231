package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/kv"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// forgetful is a store and a record that keep nothing.
type forgetful struct{ approval.Store }

func (forgetful) Create(context.Context, string, []byte) (uint64, error)         { return 1, nil }
func (forgetful) Update(context.Context, string, []byte, uint64) (uint64, error) { return 1, nil }
func (forgetful) Put(context.Context, string, []byte) (uint64, error)            { return 1, nil }
func (forgetful) List(context.Context) ([]kv.Entry, error)                       { return nil, nil }
func (forgetful) Append(context.Context, bool, ...*auditlog.Event) error         { return nil }

// TestDocumentsOfTheManager: what the agent itself makes of a held action is what an
// approver's command line takes for whole, over JSON.
func TestDocumentsOfTheManager(t *testing.T) {
	m, err := approval.New(t.Context(), approval.Config{Node: "node-a", Store: forgetful{}, Record: forgetful{}, Key: make([]byte, 32),
		Timeout: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	actor := &flow.Actor{Issuer: "https://ci.example.com", Subject: "a7"}
	for name, change := range map[string]func(*session.Ask){
		"one": func(*session.Ask) {},
		"several": func(a *session.Ask) {
			a.Actions = append(a.Actions, &flow.Action{Text: "SELECT $1", Params: []string{"7"}, Functions: []string{"f"}, Digest: "sha256:01"})
		},
		"bare": func(a *session.Ask) {
			a.Flow.Database, a.Flow.Login, a.Actions[0].State, a.Actions[0].Accesses = "", "", nil, nil
		},
		"actor":   func(a *session.Ask) { a.Who.Actor = actor },
		"hostile": func(a *session.Ask) { a.Actions[0].Text = "<&>\u2028" + hostile },
	} {
		a := &session.Ask{
			Flow: flow.Flow{ID: "01FLOW", Node: "node-a", Protocol: flow.Postgres, Backend: "orders", Destination: netip.MustParseAddrPort("127.0.0.1:5432"), Database: "shop", Login: "app"},
			Who:  &flow.Principal{Issuer: "https://idp.example.com", Subject: "ann", User: "ann@example.com", Groups: []string{"b", "a"}, Kind: flow.Human},
			Actions: []*flow.Action{{Accesses: []flow.Access{{Verb: flow.Delete, Resource: "shop.orders", Unrestricted: true}}, Text: "DELETE FROM shop.orders", Digest: "sha256:00",
				State: []flow.Setting{{Name: "role", Value: "app"}}, Meaning: "sha256:02"}},
			Needs: []policy.Need{{Rule: "r", Policy: "p", Approve: &policy.Approve{Grant: policy.GrantOnce, Proof: policy.ProofIDP, MaxAge: time.Minute,
				Needs: []policy.Quorum{{Groups: []string{"dba"}, Count: 1}}}}},
		}
		change(a)
		hold, err := m.Ask(t.Context(), a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		shown, err := m.Show(t.Context(), approval.Viewer{Root: true}, hold.Notice().ID)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		raw, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		var r approval.Request
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		if err := checkDocument(&r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		hold.Withdraw("the test is over")
	}
}
