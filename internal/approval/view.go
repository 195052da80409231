package approval

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// sees reports whether the viewer may see a request: root, the requester, and members
// of the groups that decide.
func (it *item) sees(v Viewer) bool {
	if v.Root {
		return true
	}
	if v.Who == nil {
		return false
	}
	who := personOf(v.Who)
	return it.doc.Scope.Requester.involves(&who) || it.eligible(&Decision{Groups: who.Groups})
}

// view is a request as the viewer sees it.
func (m *Manager) view(it *item, v Viewer) *Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, rec := &it.doc, &it.rec
	s := &d.Scope
	r := &Request{ID: it.id, Status: rec.Status, Digest: it.digest, Nonce: it.nonce, Requester: s.Requester.User, Principal: s.Requester,
		Node: d.Node, Flow: rec.Flow, Backend: s.Backend, Protocol: s.Protocol, Database: s.Database, Login: s.Login, State: s.State,
		Action: s.Actions[0], Rule: d.Rules[0].Rule, Rules: d.Rules, Created: d.Created, Expires: d.Expires, Grant: rec.Grant,
		Needed: []Needed{}, Decisions: decisionsOf(rec), Ended: rec.Ended, Review: rec.Review, BreakGlass: d.breakGlass(), Document: string(rec.Document)}
	if len(s.Actions) > 1 {
		r.Actions = s.Actions
	}
	if !rec.Until.IsZero() {
		r.Expires = rec.Until
	}
	for _, rule := range d.Rules {
		r.Needed = append(r.Needed, rule.Needed...)
		if r.Prompt == "" {
			r.Prompt = rule.Prompt
		}
	}
	r.MaxAge = int64(it.want().MaxAge.Seconds())
	if rec.BrokeBy != "" {
		r.Broke = &Broke{By: rec.BrokeBy, Reason: rec.Why}
	}
	own := false
	if v.Who != nil {
		who := personOf(v.Who)
		own = s.Requester.overlaps(&who)
		r.May = it.may(who, own)
	}
	if !own {
		r.Preview = rec.Preview
	}
	return r
}

func (d *document) breakGlass() []string {
	var all []string
	for _, r := range d.Rules {
		for _, g := range r.BreakGlass {
			if !slices.Contains(all, g) {
				all = append(all, g)
			}
		}
	}
	return all
}

// may lists what somebody may do. The mutex is held.
func (it *item) may(who Person, own bool) []string {
	may := []string{}
	rec := &it.rec
	eligible := it.eligible(&Decision{Groups: who.Groups}) && !own && who.Actor == nil
	decided := slices.ContainsFunc(rec.Decisions, func(d storedDecision) bool { return same(d.person(), &who) })
	if rec.Status == Pending && eligible {
		if !decided {
			may = append(may, "approve")
		}
		may = append(may, "deny")
	}
	if !over(rec.Status) && own || rec.Status == Approved && eligible {
		may = append(may, "withdraw")
	}
	if rec.Status == Pending && same(&it.doc.Scope.Requester, &who) && who.Actor == nil && it.mayBreakGlass(who.Groups) {
		may = append(may, "break-glass")
	}
	if rec.Review == reviewOpen && eligible {
		may = append(may, "review")
	}
	return may
}

// all are the requests that a viewer may see, oldest first.
func (m *Manager) all(v Viewer, ended bool) []*item {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*item
	for _, it := range m.items {
		if (ended || !over(it.rec.Status) || it.rec.Review == reviewOpen) && it.sees(v) {
			out = append(out, it)
		}
	}
	slices.SortFunc(out, func(a, b *item) int { return cmp.Or(a.doc.Created.Compare(b.doc.Created), strings.Compare(a.id, b.id)) })
	return out
}

// List implements Service.
func (m *Manager) List(ctx context.Context, v Viewer, all bool) ([]Request, error) {
	if v.Who == nil && !v.Root {
		return nil, &NotAllowed{Why: "weir: nobody is signed in here; sign in with `weir login`"}
	}
	items := m.all(v, all)
	if err := m.saw(ctx, v, items...); err != nil {
		return nil, err
	}
	out := make([]Request, len(items))
	for i, it := range items {
		out[i] = *m.view(it, v)
	}
	return out, nil
}

// Show implements Service.
func (m *Manager) Show(ctx context.Context, v Viewer, id string) (*Request, error) {
	it, err := m.find(id)
	if err != nil {
		return nil, err
	}
	if !it.sees(v) {
		return nil, &NotFound{ID: id}
	}
	m.awaitPreview(ctx, it, v)
	if err := m.saw(ctx, v, it); err != nil {
		return nil, err
	}
	return m.view(it, v), nil
}

// showWait is how long Show waits for a preview.
const showWait = 5 * time.Second

// awaitPreview has the preview found out for somebody who may see it, and waits a while.
func (m *Manager) awaitPreview(ctx context.Context, it *item, v Viewer) {
	if v.Who != nil {
		who := personOf(v.Who)
		if it.doc.Scope.Requester.overlaps(&who) {
			return
		}
	}
	found := m.findPreview(it, false)
	if found == nil {
		return
	}
	timer := time.NewTimer(showWait)
	defer timer.Stop()
	select {
	case <-found:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// saw puts on record that somebody has seen requests, once for each; without a record
// nobody sees them.
func (m *Manager) saw(ctx context.Context, v Viewer, items ...*item) error {
	name, who := "root at the node", Person{}
	if v.Who != nil {
		who = personOf(v.Who)
		name = who.Issuer + "\x00" + who.Subject
	}
	var events []*auditlog.Event
	m.mu.Lock()
	for _, it := range items {
		if it.seen[name] || over(it.rec.Status) && it.rec.Review != reviewOpen || v.Who != nil && it.doc.Scope.Requester.overlaps(&who) {
			continue
		}
		it.seen[name] = true
		ev := m.event(it, auditlog.ApprovalView)
		if v.Who != nil {
			ev.Principal, ev.Session = session.PrincipalEvent(v.Who), v.Who.Session
		} else {
			ev.Reason = name
		}
		events = append(events, ev)
	}
	m.mu.Unlock()
	if len(events) == 0 {
		return nil
	}
	if err := m.cfg.Record.Append(ctx, true, events...); err != nil {
		m.mu.Lock()
		for _, it := range items {
			delete(it.seen, name)
		}
		m.mu.Unlock()
		m.cfg.Log.Error("that a request was seen cannot be recorded, so it is not shown", "error", err)
		return &Conflict{Why: "weir: that you see this cannot be recorded just now, so it is not shown; try again, or tell whoever runs weir on this node"}
	}
	return nil
}

// shown is what approvers could see besides the document, for the record.
func (m *Manager) shown(it *item) json.RawMessage {
	if len(it.rec.Preview) == 0 {
		return nil
	}
	b, err := json.Marshal(it.rec.Preview)
	if err != nil {
		return nil
	}
	return b
}

// notify tells the notifiers about a request, without what only approvers may see.
func (m *Manager) notify(it *item) {
	for _, n := range m.cfg.Notify {
		r := m.view(it, Viewer{})
		r.Preview = nil
		n.Notify(*r)
	}
}

// watcher yields what changes, each request once however often it has changed.
type watcher struct {
	m    *Manager
	v    Viewer
	mu   sync.Mutex
	ids  []string
	news chan struct{} // holds one token while there may be something
}

// Watch implements Service.
func (m *Manager) Watch(_ context.Context, v Viewer) Watcher {
	w := &watcher{m: m, v: v, news: make(chan struct{}, 1)}
	open := m.all(v, false)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range open {
		w.add(it.id)
	}
	m.watches[w] = struct{}{}
	return w
}

func (w *watcher) add(id string) {
	w.mu.Lock()
	if !slices.Contains(w.ids, id) {
		w.ids = append(w.ids, id)
	}
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *watcher) take() (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ids) == 0 {
		return "", false
	}
	id := w.ids[0]
	w.ids = w.ids[1:]
	return id, true
}

// Next implements Watcher.
func (w *watcher) Next(ctx context.Context) (*Request, error) {
	for {
		id, ok := w.take()
		if !ok {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-w.m.ctx.Done():
				return nil, context.Canceled
			case <-w.news:
			}
			continue
		}
		it, err := w.m.find(id)
		if err != nil || !it.sees(w.v) {
			continue
		}
		if err := w.m.saw(ctx, w.v, it); err != nil {
			return nil, err
		}
		return w.m.view(it, w.v), nil
	}
}

// Close implements Watcher.
func (w *watcher) Close() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	delete(w.m.watches, w)
}
