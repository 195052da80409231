package approval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/kv"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// memory is a store that lives over restarts of a manager.
type memory struct {
	mu   sync.Mutex
	rev  uint64
	keys map[string]kv.Entry
	fail error // of every write
}

func newMemory() *memory { return &memory{keys: map[string]kv.Entry{}} }

func (s *memory) write(key string, value []byte) (uint64, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	s.rev++
	s.keys[key] = kv.Entry{Key: key, Value: bytes.Clone(value), Revision: s.rev}
	return s.rev, nil
}

func (s *memory) Create(_ context.Context, key string, value []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.keys[key]; ok {
		return 0, kv.ErrExists
	}
	return s.write(key, value)
}

func (s *memory) Get(_ context.Context, key string) (kv.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.keys[key]
	if !ok {
		return e, kv.ErrNotFound
	}
	return e, nil
}

func (s *memory) Update(_ context.Context, key string, value []byte, rev uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys[key].Revision != rev {
		return 0, kv.ErrConflict
	}
	return s.write(key, value)
}

func (s *memory) Put(_ context.Context, key string, value []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(key, value)
}

func (s *memory) List(context.Context) ([]kv.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []kv.Entry
	for _, e := range s.keys {
		all = append(all, e)
	}
	return all, nil
}

// log keeps events.
type log struct {
	mu     sync.Mutex
	events []*auditlog.Event
	fail   error
}

func (l *log) Append(_ context.Context, _ bool, events ...*auditlog.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.events = append(l.events, events...)
	return nil
}

// of lists the events of a kind, as "decided status reason".
func (l *log) of(kind auditlog.Kind) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.events {
		if e.Kind == kind {
			who := ""
			if e.Principal != nil {
				who = e.Principal.User
			}
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", who, e.Approval.Decided, e.Approval.Status)))
		}
	}
	return out
}

// tokens is a Prover whose tokens are "user|groups|nonce".
type tokens struct{ people map[string]*flow.Principal }

func (p *tokens) read(token string, want Want) (*flow.Principal, error) {
	name, nonce, _ := strings.Cut(token, "|")
	who := p.people[name]
	if who == nil || nonce != want.Nonce {
		return nil, errors.New("the token is not for this request")
	}
	return who, nil
}

func (p *tokens) Verify(_ context.Context, token string, want Want) (*Proof, error) {
	who, err := p.read(token, want)
	if err != nil {
		return nil, err
	}
	return &Proof{Who: who, Token: token, Keys: json.RawMessage(`{"keys":[]}`)}, nil
}

func (p *tokens) Recheck(token string, _ json.RawMessage, want Want, _ time.Time) (*flow.Principal, error) {
	return p.read(token, want)
}

type world struct {
	t     *testing.T
	m     *Manager
	store *memory
	log   *log
	prove *tokens
	mu    sync.Mutex
	now   time.Time
}

func (w *world) time() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) set(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = t
}

func human(name string, groups ...string) *flow.Principal {
	return &flow.Principal{Issuer: "https://idp", Subject: "sub-" + name, User: name + "@example.com", Groups: groups, Kind: flow.Human, Session: "s-" + name}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: newMemory(), log: &log{}, now: time.Now(), prove: &tokens{people: map[string]*flow.Principal{
		"ann": human("ann", "developer", "dba"), "dora": human("dora", "dba"), "dan": human("dan", "dba", "lead"),
		"lea": human("lea", "lead"), "eve": human("eve", "visitors"), "olga": human("olga", "oncall"),
	}}}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	m, err := New(context.Background(), Config{Node: "n1", Store: w.store, Key: bytes.Repeat([]byte{7}, 32), Timeout: 15 * time.Minute,
		Prove: w.prove, Record: w.log, Now: w.time, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
	w.t.Cleanup(func() { m.Close() })
}

func need(a policy.Approve) []policy.Need {
	if a.Grant == "" {
		a.Grant = policy.GrantOnce
	}
	if a.Proof == "" {
		a.Proof = policy.ProofIDP
	}
	if a.Needs == nil {
		a.Needs = []policy.Quorum{{Groups: []string{"dba"}, Count: 1}}
	}
	return []policy.Need{{Rule: "r", Policy: "p", Approve: &a}}
}

func (w *world) ask(who *flow.Principal, text string, needs []policy.Need) *session.Ask {
	return &session.Ask{
		Flow: flow.Flow{ID: "01FLOW", Node: "n1", Protocol: flow.Postgres, Backend: "orders", Destination: netip.MustParseAddrPort("127.0.0.1:5432"), Database: "shop", Login: "weir_app"},
		Who:  who, Needs: needs, Revision: "sha256:policy",
		Actions: []*flow.Action{{ID: "01ACT", Accesses: []flow.Access{{Verb: flow.Delete, Resource: "shop.orders", Unrestricted: true}}, Text: text,
			Digest: "sha256:" + text, Bytes: int64(len(text)), State: []flow.Setting{{Name: "role", Value: "weir_app"}}, Meaning: "sha256:m"}},
	}
}

func (w *world) hold(a *session.Ask) session.Hold {
	w.t.Helper()
	h, err := w.m.Ask(context.Background(), a)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// token is a token of a person for a request.
func (w *world) token(name, id string) Attempt {
	r, err := w.m.Show(context.Background(), Viewer{Root: true}, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return Attempt{Token: name + "|" + r.Nonce, Reason: "looks right"}
}

func (w *world) status(id string) Status {
	r, err := w.m.Show(context.Background(), Viewer{Root: true}, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Status
}

func (w *world) claim(h session.Hold, a *session.Ask) (session.Consent, error) {
	return h.Claim(context.Background(), a)
}

func wantRefused[T error](t *testing.T, err error, part string) {
	t.Helper()
	var want T
	if !errors.As(err, &want) || !strings.Contains(err.Error(), part) {
		t.Errorf("error %v (%T), want %T with %q", err, err, want, part)
	}
}

func TestOnce(t *testing.T) {
	w := newWorld(t)
	ask := w.ask(w.prove.people["ann"], "DELETE FROM shop.orders", need(policy.Approve{}))
	h := w.hold(ask)
	if n := h.Notice(); n.Waiting != "1 of group dba" || h.Ended() {
		t.Errorf("notice %+v, ended %v", n, h.Ended())
	}
	changed := h.Changed()
	id := h.Notice().ID
	r, err := w.m.Approve(context.Background(), id, w.token("dora", id))
	if err != nil || r.Status != Approved {
		t.Fatalf("%+v, %v", r, err)
	}
	<-changed
	c, err := w.claim(h, ask)
	if err != nil || c.Approvers[0] != "dora@example.com" || c.Proof != ProofIDP || c.Digest != r.Digest {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := w.claim(h, ask); err == nil {
		t.Error("a consent was taken twice")
	}
	if _, ok := w.m.Standing(ask); ok {
		t.Error("the same again went through without asking")
	}
	if s := w.status(id); s != Used {
		t.Errorf("status %s", s)
	}
	if got := fmt.Sprint(w.log.of(auditlog.ApprovalDecide)); got != "[dora@example.com approved approved]" {
		t.Error(got)
	}
}

// TestAttemptsThatFail: each leaves the request pending, or ended, and nothing runs.
func TestAttemptsThatFail(t *testing.T) {
	ctx := context.Background()
	open := func(t *testing.T, who *flow.Principal) (*world, session.Hold, *session.Ask, string) {
		w := newWorld(t)
		ask := w.ask(who, "DELETE FROM shop.orders", need(policy.Approve{}))
		h := w.hold(ask)
		return w, h, ask, h.Notice().ID
	}
	ann := human("ann", "developer", "dba")
	still := func(t *testing.T, w *world, h session.Hold, ask *session.Ask, id string) {
		t.Helper()
		if s := w.status(id); s != Pending {
			t.Errorf("status %s, want pending", s)
		}
		if _, err := w.claim(h, ask); err == nil {
			t.Error("it ran")
		}
		if got := w.log.of(auditlog.ApprovalDecide); len(got) == 0 || !strings.Contains(got[0], "refused") {
			t.Errorf("the attempt is not on record: %q", got)
		}
	}
	t.Run("own", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		_, err := w.m.Approve(ctx, id, w.token("ann", id))
		wantRefused[*NotAllowed](t, err, "nobody decides on what they ask for")
		still(t, w, h, ask, id)
	})
	t.Run("same address in another case at another subject", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		w.prove.people["Ann"] = &flow.Principal{Issuer: "https://idp", Subject: "other", User: "ANN@Example.com", Groups: []string{"dba"}, Kind: flow.Human}
		_, err := w.m.Approve(ctx, id, w.token("Ann", id))
		wantRefused[*NotAllowed](t, err, "nobody decides")
		still(t, w, h, ask, id)
	})
	t.Run("second account with the same subject", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		w.prove.people["two"] = &flow.Principal{Issuer: "https://idp", Subject: "sub-ann", User: "second@example.com", Groups: []string{"dba"}, Kind: flow.Human}
		_, err := w.m.Approve(ctx, id, w.token("two", id))
		wantRefused[*NotAllowed](t, err, "nobody decides")
		still(t, w, h, ask, id)
	})
	t.Run("the person an agent acts for, and the agent", func(t *testing.T) {
		bot := human("ann", "developer")
		bot.Actor = &flow.Actor{Subject: "sub-dora", User: "dora@example.com"}
		w, h, ask, id := open(t, bot)
		for _, name := range []string{"ann", "dora"} {
			_, err := w.m.Approve(ctx, id, w.token(name, id))
			wantRefused[*NotAllowed](t, err, "nobody decides")
		}
		still(t, w, h, ask, id)
	})
	t.Run("group missing", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		_, err := w.m.Approve(ctx, id, w.token("eve", id))
		wantRefused[*NotAllowed](t, err, "none of the groups")
		still(t, w, h, ask, id)
	})
	t.Run("removed between asking and deciding", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		w.prove.people["dora"].Groups = nil
		_, err := w.m.Approve(ctx, id, w.token("dora", id))
		wantRefused[*NotAllowed](t, err, "none of the groups")
		still(t, w, h, ask, id)
	})
	t.Run("token for another request", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		other := w.hold(w.ask(ann, "DELETE FROM shop.orders", ask.Needs))
		_, err := w.m.Approve(ctx, id, w.token("dora", other.Notice().ID))
		wantRefused[*NotAllowed](t, err, "does not prove")
		still(t, w, h, ask, id)
	})
	t.Run("session where the rule wants a sign-in", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		_, err := w.m.Approve(ctx, id, Attempt{Viewer: Viewer{Who: human("dora", "dba")}})
		wantRefused[*NotAllowed](t, err, "wants a sign-in")
		still(t, w, h, ask, id)
	})
	t.Run("root", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		_, err := w.m.Approve(ctx, id, Attempt{Viewer: Viewer{Root: true}})
		wantRefused[*NotAllowed](t, err, "root is nobody")
		still(t, w, h, ask, id)
	})
	t.Run("edited in the store", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		e := w.store.keys[requestKeys+id]
		var x sealed
		if err := json.Unmarshal(e.Value, &x); err != nil {
			t.Fatal(err)
		}
		x.Body = bytes.Replace(x.Body, []byte(`"pending"`), []byte(`"approved"`), 1)
		value, _ := json.Marshal(x)
		w.store.Put(ctx, requestKeys+id, value)
		_, err := w.m.Approve(ctx, id, w.token("dora", id))
		wantRefused[*NotAllowed](t, err, "was not written by this node")
		if s := w.status(id); s != Withdrawn {
			t.Errorf("status %s", s)
		}
		if _, err := w.claim(h, ask); err == nil {
			t.Error("it ran")
		}
	})
	t.Run("decision written into the store", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		it := w.m.items[id]
		rec := it.rec
		rec.Status = Approved
		rec.Decisions = []storedDecision{{Decision: Decision{User: "dora@example.com", Issuer: "https://idp", Subject: "sub-dora", Groups: []string{"dba"}, Decided: DecidedApproved, Proof: ProofIDP}, Token: "dora|" + it.nonce}}
		value, err := sealer{bytes.Repeat([]byte{8}, 32)}.seal(requestKeys+id, rec) // by somebody else's key
		if err != nil {
			t.Fatal(err)
		}
		w.store.Put(ctx, requestKeys+id, value)
		if _, err := w.claim(h, ask); err == nil {
			t.Error("it ran")
		}
		if s := w.status(id); s != Pending {
			t.Errorf("status %s", s)
		}
		w.m.Close()
		w.start() // a restart does not believe it either
		if _, err := w.m.find(id); err == nil {
			t.Error("a forged record was read back")
		}
	})
	t.Run("clock set back", func(t *testing.T) {
		w, h, ask, id := open(t, ann)
		w.set(w.time().Add(16 * time.Minute))
		w.m.clock.now()
		w.set(w.time().Add(-16 * time.Minute))
		_, err := w.m.Approve(ctx, id, w.token("dora", id))
		wantRefused[*Conflict](t, err, "expired")
		if _, err := w.claim(h, ask); err == nil {
			t.Error("it ran")
		}
	})
	t.Run("two decisions at once", func(t *testing.T) {
		for range 20 {
			w, h, ask, id := open(t, ann)
			var wg sync.WaitGroup
			errs := make([]error, 2)
			yes, no := w.token("dora", id), w.token("dan", id)
			wg.Add(2)
			go func() { defer wg.Done(); _, errs[0] = w.m.Approve(ctx, id, yes) }()
			go func() { defer wg.Done(); _, errs[1] = w.m.Deny(ctx, id, no) }()
			wg.Wait()
			if (errs[0] == nil) == (errs[1] == nil) {
				t.Fatalf("both or none counted: %v", errs)
			}
			if _, err := w.claim(h, ask); (err == nil) != (errs[0] == nil) {
				t.Errorf("claim %v after %v", err, errs)
			}
		}
	})
}

func TestChangedWhileWaiting(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(a *session.Ask){
		"catalogue": func(a *session.Ask) { a.Actions[0].Meaning = "sha256:other" },
		"session":   func(a *session.Ask) { a.Actions[0].State = []flow.Setting{{Name: "role", Value: "admin"}} },
		"policy": func(a *session.Ask) {
			a.Needs = need(policy.Approve{Needs: []policy.Quorum{{Groups: []string{"lead"}, Count: 1}}})
		},
		"who asks": func(a *session.Ask) { a.Who = human("ann", "developer") },
	} {
		w := newWorld(t)
		ask := w.ask(w.prove.people["ann"], "DELETE FROM shop.orders", need(policy.Approve{}))
		h := w.hold(ask)
		id := h.Notice().ID
		if _, err := w.m.Approve(ctx, id, w.token("dora", id)); err != nil {
			t.Fatal(err)
		}
		now := w.ask(ask.Who, "DELETE FROM shop.orders", ask.Needs)
		change(now)
		_, err := w.claim(h, now)
		wantRefused[*session.Refusal](t, err, "has changed")
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if s := w.status(id); s != Withdrawn {
			t.Errorf("%s: status %s", name, s)
		}
	}
}

func TestQuorum(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	both := need(policy.Approve{Needs: []policy.Quorum{{Groups: []string{"dba"}, Count: 1}, {Groups: []string{"lead"}, Count: 1}}})
	ask := w.ask(human("eve", "visitors"), "DROP TABLE x", both)
	h := w.hold(ask)
	id := h.Notice().ID
	// dan is in both groups and fills one place; lea can only fill the other.
	if r, err := w.m.Approve(ctx, id, w.token("dan", id)); err != nil || r.Status != Pending {
		t.Fatalf("%v, %v", r, err)
	}
	_, err := w.m.Approve(ctx, id, w.token("dan", id))
	wantRefused[*Conflict](t, err, "already")
	if n := h.Notice(); !strings.Contains(n.Waiting, "1 of group") {
		t.Errorf("waiting for %q", n.Waiting)
	}
	if r, err := w.m.Approve(ctx, id, w.token("lea", id)); err != nil || r.Status != Approved {
		t.Fatalf("%v, %v", r, err)
	}
	if c, err := w.claim(h, ask); err != nil || len(c.Approvers) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestDurations(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	needs := need(policy.Approve{Grant: "30m", GrantFor: 30 * time.Minute})
	ask := w.ask(w.prove.people["ann"], "DELETE FROM shop.orders", needs)
	h := w.hold(ask)
	id := h.Notice().ID
	if _, err := w.m.Approve(ctx, id, w.token("dora", id)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.claim(h, ask); err != nil {
		t.Fatal(err)
	}
	again := w.ask(ask.Who, "DELETE FROM shop.orders", needs)
	again.Flow.ID = "01OTHER"
	c, ok := w.m.Standing(again)
	if !ok {
		t.Fatal("a duration does not stand on another connection")
	}
	for name, other := range map[string]*session.Ask{
		"one space":      w.ask(ask.Who, "DELETE FROM shop.orders ", needs),
		"another person": w.ask(human("lea", "lead"), "DELETE FROM shop.orders", needs),
		"another policy": w.ask(ask.Who, "DELETE FROM shop.orders", need(policy.Approve{Grant: "30m", GrantFor: 30 * time.Minute, Proof: policy.ProofSession})),
	} {
		if _, ok := w.m.Standing(other); ok {
			t.Errorf("%s: the grant covers it", name)
		}
	}
	if err := w.m.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	if _, ok := w.m.Standing(again); !ok {
		t.Error("a duration does not go on over a restart")
	}
	c, _ = w.m.Standing(again)
	if _, err := w.m.Withdraw(ctx, id, Attempt{Viewer: Viewer{Who: human("dora", "dba")}, Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	if c.Live.Err() == nil || !errors.Is(context.Cause(c.Live), session.ErrGrantWithdrawn) {
		t.Error("what hangs on a withdrawn grant is not told")
	}
	if _, ok := w.m.Standing(again); ok {
		t.Error("a withdrawn grant stands")
	}
}

// TestRestart: what waited has ended with a reason, a grant that has run out meanwhile
// does not come back, nor does one when the clock was set back.
func TestRestart(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	waits := w.hold(w.ask(w.prove.people["ann"], "DELETE FROM a", need(policy.Approve{}))).Notice().ID
	needs := need(policy.Approve{Grant: "30m", GrantFor: 30 * time.Minute})
	ask := w.ask(w.prove.people["ann"], "DELETE FROM b", needs)
	h := w.hold(ask)
	id := h.Notice().ID
	if _, err := w.m.Approve(ctx, id, w.token("dora", id)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.claim(h, ask); err != nil {
		t.Fatal(err)
	}
	// The agent dies: nothing is closed. Its timers must not write any more.
	w.m.mu.Lock()
	w.m.closed = true
	w.m.mu.Unlock()
	w.set(w.time().Add(31 * time.Minute))
	w.start()
	if s := w.status(waits); s != Withdrawn {
		t.Errorf("what waited is %s", s)
	}
	if s := w.status(id); s != Expired {
		t.Errorf("the grant is %s", s)
	}
	w.set(w.time().Add(-31 * time.Minute))
	w.start()
	if _, ok := w.m.Standing(ask); ok {
		t.Error("a grant came back with the clock")
	}
}

func TestBreakGlass(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	olga := w.prove.people["olga"]
	ask := w.ask(olga, "DELETE FROM shop.orders", need(policy.Approve{BreakGlass: []string{"oncall"}}))
	h := w.hold(ask)
	id := h.Notice().ID
	if !h.Notice().BreakGlass {
		t.Error("the requester is not told of it")
	}
	_, err := w.m.BreakGlass(ctx, id, Attempt{Viewer: Viewer{Who: olga}})
	wantRefused[*NotAllowed](t, err, "wants a reason")
	_, err = w.m.BreakGlass(ctx, id, Attempt{Viewer: Viewer{Who: human("dora", "dba", "oncall")}, Reason: "fire"})
	wantRefused[*NotAllowed](t, err, "only the requester")
	if r, err := w.m.BreakGlass(ctx, id, Attempt{Viewer: Viewer{Who: olga}, Reason: "fire"}); err != nil || r.Review != "open" || r.Status != Approved {
		t.Fatalf("%+v, %v", r, err)
	}
	if c, err := w.claim(h, ask); err != nil || !c.BreakGlass || c.Reason != "fire" {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = w.m.Review(ctx, id, Attempt{Viewer: Viewer{Who: olga}})
	wantRefused[*NotAllowed](t, err, "nobody reviews")
	list, err := w.m.List(ctx, Viewer{Who: human("dora", "dba")}, false)
	if err != nil || len(list) != 1 || fmt.Sprint(list[0].May) != "[review]" {
		t.Errorf("an open review is not listed: %+v, %v", list, err)
	}
	if r, err := w.m.Review(ctx, id, Attempt{Viewer: Viewer{Who: human("dora", "dba")}, Reason: "was needed"}); err != nil || r.Review != "done" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestWhoSees: the requester does not see what the action would do, strangers nothing;
// that somebody has seen it is on record once.
func TestWhoSees(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	ask := w.ask(w.prove.people["ann"], "DELETE FROM shop.orders", need(policy.Approve{}))
	rows := int64(42)
	done := make(chan struct{})
	ask.Preview = func(context.Context) []session.Preview { defer close(done); return []session.Preview{{Rows: &rows}} }
	h := w.hold(ask)
	<-h.Changed() // its preview came
	<-done
	id := h.Notice().ID
	dora := Viewer{Who: human("dora", "dba")}
	for range 2 {
		r, err := w.m.Show(ctx, dora, id)
		if err != nil || len(r.Preview) != 1 || *r.Preview[0].Rows != 42 || fmt.Sprint(r.May) != "[approve deny]" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if r, err := w.m.Show(ctx, Viewer{Who: w.prove.people["ann"]}, id); err != nil || r.Preview != nil || fmt.Sprint(r.May) != "[withdraw]" {
		t.Errorf("%+v, %v", r, err)
	}
	_, err := w.m.Show(ctx, Viewer{Who: human("eve", "visitors")}, id)
	wantRefused[*NotFound](t, err, "no request")
	if got := fmt.Sprint(w.log.of(auditlog.ApprovalView)); got != "[dora@example.com]" {
		t.Errorf("seen by %s", got)
	}
}

func TestUnrecordable(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	ask := w.ask(w.prove.people["ann"], "DELETE FROM shop.orders", need(policy.Approve{}))
	h := w.hold(ask)
	id := h.Notice().ID
	token := w.token("dora", id)
	w.log.fail = errors.New("disk full")
	if _, err := w.m.Ask(ctx, ask); err == nil {
		t.Error("a request was opened that is not on record")
	}
	_, err := w.m.Approve(ctx, id, token)
	wantRefused[*Conflict](t, err, "cannot be recorded")
	w.log.fail = nil
	w.store.fail = errors.New("disk full")
	_, err = w.m.Approve(ctx, id, token)
	wantRefused[*Conflict](t, err, "could not be stored")
	w.store.fail = nil
	if _, err := w.claim(h, ask); err == nil {
		t.Error("it ran")
	}
}

func TestExpiresAndWatch(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	watch := w.m.Watch(ctx, Viewer{Root: true})
	defer watch.Close()
	h := w.hold(w.ask(w.prove.people["ann"], "DELETE FROM shop.orders", need(policy.Approve{Timeout: time.Millisecond})))
	for {
		r, err := watch.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == Expired {
			break
		}
		w.set(w.time().Add(time.Second))
	}
	_, err := w.claim(h, nil)
	wantRefused[*session.Refusal](t, err, "nobody decided in time")
}
