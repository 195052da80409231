package evidence

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

type (
	opener  func(name string) (io.ReadCloser, error)
	creator func(name, about string) (io.Writer, error)
)

// report is everything that the derived members say.
type report struct {
	m     *Manifest
	proof *leafRange

	tables                                                                                                  []*table
	findings, access, used, approvals, decisions, masks, denials, bypass, identities, policies, keys, heads *table
	recordings, complete, controls, sample, list                                                            *table
	ocsf                                                                                                    *bufio.Writer

	events            uint64
	kinds             map[auditlog.Kind]uint64
	firstSeq, lastSeq uint64
	first, last       time.Time
	eligible          uint64 // cases that a sample is taken from
	actions           uint64
	maskedValues      int64
	findingsBy        map[string]int

	stopped   bool // the last word of the agent was that it stops
	running   bool
	flows     map[string]opened
	pending   map[string]opened
	requests  map[string]*request
	order     []string // of requests
	usedBy    map[usedKey]*usedRow
	maskedBy  map[maskKey]*maskRow
	people    map[personKey]*personRow
	keySets   map[[sha256.Size]byte]*keyRow
	revisions []revision
	texts     []policyText
	accounts  []account
	cut       map[string]uint64 // rows that did not fit in memory, by table
}

// opened is something that should end.
type opened struct {
	seq             uint64
	at              time.Time
	user, backend   string
	what            string
	beforeThePeriod bool
}

type request struct {
	id, digest, requester, backend, rule, action, status, reasons, proofs, approvers, ended string
	document                                                                                string
	seq                                                                                     uint64
	at                                                                                      time.Time
	views                                                                                   int
	outcome                                                                                 string
	glass                                                                                   bool
	before                                                                                  bool
	runs                                                                                    int
	inPeriod                                                                                bool
}

type usedKey struct{ user, issuer, backend, database, login, verb, resource string }
type usedRow struct {
	allowed, approved, denied uint64
	first, last               time.Time
}
type maskKey struct{ backend, database, column, method, source, detector string }
type maskRow struct {
	values  int64
	actions uint64
	users   map[string]bool
	more    bool
}
type personKey struct{ issuer, subject string }
type personRow struct {
	user, kind, actors   string
	groups               map[string]bool
	binds, ends, actions uint64
	first, last          time.Time
}
type keyRow struct {
	set    json.RawMessage
	issuer string
	first  time.Time
	used   uint64
}

// revision is a policy as it was in force.
type revision struct {
	digest   string
	from, to time.Time // to zero: at the end of the period
	files    []auditlog.PolicyFile
	seq      uint64
	text     bool
}

type policyText struct{ name, text string }

// maxTracked bounds what is waited for in memory.
const maxTracked = 1 << 20

// derive makes all derived members out of the others.
func derive(ctx context.Context, m *Manifest, open opener, create creator) error {
	r := &report{m: m, kinds: map[auditlog.Kind]uint64{}, flows: map[string]opened{}, pending: map[string]opened{}, requests: map[string]*request{},
		usedBy: map[usedKey]*usedRow{}, maskedBy: map[maskKey]*maskRow{}, people: map[personKey]*personRow{}, keySets: map[[sha256.Size]byte]*keyRow{},
		cut: map[string]uint64{}, findingsBy: map[string]int{}}
	var err error
	if r.proof, err = readRange(open); err != nil {
		return err
	}
	book, err := newWorkbook()
	if err != nil {
		return err
	}
	defer book.close()
	r.makeTables()
	for _, t := range r.tables {
		w, err := create("tables/"+t.name+".csv", t.title)
		if err != nil {
			return err
		}
		t.begin(w)
		if t.sheet, err = book.sheet(t); err != nil {
			return err
		}
	}
	ocsf, err := create("ocsf.jsonl", "the events in the Open Cybersecurity Schema Framework, version "+ocsfVersion)
	if err != nil {
		return err
	}
	r.ocsf = bufio.NewWriter(ocsf)
	if err := r.readContext(open); err != nil {
		return err
	}
	seen := make(nodes)
	all, err := r.proof.events()
	if err != nil {
		return err
	}
	if all <= maxProofs {
		for i := r.proof.From; i < r.proof.To; i++ {
			if err := seen.want(i, r.proof.Size); err != nil {
				return err
			}
		}
	}
	if err := r.readEvents(ctx, open, seen); err != nil {
		return err
	}
	cases, err := r.draw(ctx, open)
	if err != nil {
		return err
	}
	if err := r.finish(open, cases); err != nil {
		return err
	}
	if err := r.write(open, create, book, seen, cases); err != nil {
		return err
	}
	for _, t := range r.tables {
		if err := t.end(); err != nil {
			return err
		}
	}
	return r.ocsf.Flush()
}

func readRange(open opener) (*leafRange, error) {
	b, err := readSmall(open, rangeFile)
	if err != nil {
		return nil, err
	}
	r := new(leafRange)
	if err := strict(b, r); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", rangeFile, err)
	}
	return r, nil
}

// maxSmall bounds a member that is read into memory, bytes.
const maxSmall = 16 << 20

func readSmall(open opener, name string) ([]byte, error) {
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = fmt.Errorf("%s is too long", name)
	}
	return b, err
}

func eachLine(open opener, name string, each func([]byte) error) error {
	f, err := open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lines(f, each); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r *report) makeTables() {
	add := func(name, title, about string, head ...string) *table {
		t := &table{name: name, title: title, about: about, head: head}
		r.tables = append(r.tables, t)
		return t
	}
	r.findings = add("limits", "What limits this evidence",
		"Everything known that this evidence does not cover, or covers less well: interruptions of the record, restarts, clocks that were set back, events that are missing, connections and actions without an end. An empty table means that none was found.",
		"severity", "time", "seq", "what", "detail")
	r.access = add("access", "Who had access to what",
		"The rules of every policy revision that was in force in the period. What no rule allows is refused. A rule without groups, users and kinds is for everybody who is signed in or not.",
		"in force from", "to", "policy revision", "policy", "backends", "rule", "effect", "groups", "users", "kinds", "actions", "resources", "condition", "approval", "recording")
	r.used = add("use", "Who used which access",
		"What people and workloads did, counted by person, place, verb and resource. Counted are statements and requests, not rows.",
		"user", "issuer", "backend", "database", "account", "verb", "resource", "allowed", "with approval", "refused", "first", "last")
	r.approvals = add("approvals", "Privileged actions and their approval",
		"Actions that needed other people's consent, one row for a request. Proof idp: the approver signed in at the identity provider for this very request; the signed token is in events.jsonl.",
		"requested", "seq", "request", "requester", "backend", "rule", "action", "status", "approvers", "reasons", "proof", "break glass", "times used", "outcome", "digest")
	r.decisions = add("decisions", "Decisions on requests",
		"What each approver decided, and attempts that did not count.",
		"time", "seq", "request", "decided by", "issuer", "decision", "reason", "proof", "token kept", "note")
	r.masks = add("masks", "Masks applied",
		"Values that were hidden before they reached the client, by column. A column that a detector masked has the name of the result's column.",
		"backend", "database", "column", "method", "found by", "detector", "values masked", "results", "people")
	r.denials = add("denials", "Refused connections and actions",
		"Everything that was refused, and why.",
		"time", "seq", "user", "backend", "database", "what", "resources", "refused by", "rule", "reason")
	r.bypass = add("bypass", "Refused attempts to go round",
		"Connections that tried to go past the gateway, or into it without a record of where they came from.",
		"time", "seq", "process", "uid", "destination", "reason")
	r.identities = add("identities", "Identities",
		"Everybody who was verified in the period, or acted in it.",
		"user", "subject", "issuer", "kind", "groups", "acted for them", "sign-ins", "ends", "events", "first", "last")
	r.policies = add("policies", "Policy revisions in force",
		"The texts are in policies/, as they were loaded.",
		"in force from", "to", "revision", "seq", "files")
	r.keys = add("keys", "Key sets of identity providers",
		"Public keys with which approvers' tokens were verified when they came; with them every token can be verified again.",
		"issuer", "kid", "type", "algorithm", "first used", "decisions", "SHA-256 of the set")
	r.recordings = add("recordings", "Session recordings",
		"What the log says of recordings. The recordings themselves are not in the pack; a chunk's digest proves that one handed over beside it is the one that was made.",
		"time", "seq", "user", "backend", "flow", "stream", "status", "type", "if it fails", "sealed", "chunk", "entries", "lost", "bytes", "SHA-256", "note")
	r.complete = add("completeness", "The kernel's count against the record",
		"Connections that the kernel counted towards each backend, against those that the log has. The last account of each run of the agent. A difference that is not 0 is a connection without its record, or a record without its connection.",
		"time", "seq", "backend", "from", "to", "connects redirected", "reached the agent", "opened", "refused", "ended before", "under way", "difference", "note")
	r.heads = add("checkpoints", "Signed tree heads",
		"Each is a signed statement of how many events the log had and of their root. The one of the pack covers all of its events.",
		"events in the log", "root", "signed by", "place")
	r.sample = add("sample", "Sample",
		"Cases that the auditor's seed picked; sample.jsonl has each with its proof and the chain of events around it.",
		"case", "draw", "position", "time", "seq", "index", "user", "backend", "what", "verdict", "rule", "approval", "approvers", "result")
	r.controls = add("controls", "Controls",
		"Which part of this pack speaks for which control, and what it does not show. The words are Weir's; the standard is to be read beside it.",
		"framework", "control", "subject", "evidence here", "where", "count", "does not show")
	r.list = add("events", "All events",
		"One row for an event; events.jsonl has them whole.",
		"seq", "time", "kind", "user", "acting", "session", "flow", "backend", "protocol", "database", "account", "verbs", "resources", "text", "verdict", "rule", "reason", "approval", "status", "code", "rows", "bytes", "masked values", "process", "uid", "policy")
}

func (r *report) find(severity string, at time.Time, seq uint64, what, detail string) {
	r.findingsBy[severity]++
	r.findings.add(severity, whenText(at), number(seq), what, detail)
}

func whenText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return stamp(t)
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func count[N uint64 | int64 | int](n N) string { return fmt.Sprint(n) }

// readContext takes what was before the period.
func (r *report) readContext(open opener) error {
	return eachLine(open, contextFile, func(line []byte) error {
		var c contextEvent
		var ev auditlog.Event
		if err := strict(line, &c); err != nil {
			return err
		}
		if err := json.Unmarshal(c.Event, &ev); err != nil {
			return err
		}
		switch ev.Kind {
		case auditlog.PolicyLoad:
			r.policyLoad(&ev)
		case auditlog.AgentStart, auditlog.AgentStop:
			r.running, r.stopped = ev.Kind == auditlog.AgentStart, ev.Kind == auditlog.AgentStop
		case auditlog.FlowOpen:
			r.flows[ev.Flow] = openedBy(&ev, true)
		case auditlog.ApprovalRequest, auditlog.ApprovalDecide, auditlog.ApprovalView, auditlog.ApprovalExpire:
			r.approval(&ev, true)
		case auditlog.IdentityBind:
			r.person(&ev)
		}
		return nil
	})
}

func (r *report) readEvents(ctx context.Context, open opener, seen nodes) error {
	w, err := walk(r.proof, seen.see)
	if err != nil {
		return err
	}
	o := newOCSF(r.m)
	err = eachLine(open, eventsFile, func(line []byte) error {
		var ev auditlog.Event
		if err := json.Unmarshal(line, &ev); err != nil {
			return err
		}
		index, err := w.add(line)
		if err != nil {
			return err
		}
		if index&0xfff == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.event(&ev, line)
		return writeLine(r.ocsf, o.event(&ev, index, line))
	})
	if err != nil {
		return err
	}
	return w.end()
}

func userOf(p *auditlog.Principal) (user, acting string) {
	if p == nil {
		return "", ""
	}
	for a := p.Actor; a != nil; a = a.Actor {
		acting = strings.TrimSpace(acting + " " + cmp.Or(a.User, a.Subject))
	}
	return p.User, acting
}

func openedBy(ev *auditlog.Event, before bool) opened {
	user, _ := userOf(ev.Principal)
	o := opened{seq: ev.Seq, at: ev.Time, user: user, backend: ev.Backend, beforeThePeriod: before}
	if ev.Action != nil {
		o.what = whatOf(ev.Action)
	}
	return o
}

func whatOf(a *auditlog.Action) string {
	if a.Text != "" {
		return a.Text
	}
	return strings.TrimSpace(strings.Join(a.Verbs, ",") + " " + strings.Join(a.Resources, " "))
}

// event takes an event of the period.
func (r *report) event(ev *auditlog.Event, raw []byte) {
	if r.events == 0 {
		r.firstSeq, r.first = ev.Seq, ev.Time
	} else {
		if ev.Time.Before(r.last) {
			r.find("warning", ev.Time, ev.Seq, "the clock was set back", fmt.Sprintf("the event is %s earlier than the one before it", r.last.Sub(ev.Time)))
		}
		if ev.Seq != r.lastSeq+1 {
			r.find("warning", ev.Time, ev.Seq, "events are missing", fmt.Sprintf("event %d comes right behind event %d", ev.Seq, r.lastSeq))
		}
	}
	if !r.m.has(ev.Time) {
		r.find("note", ev.Time, ev.Seq, "outside of the period by its clock", "the event lies between events of the period, so it is here")
	}
	r.events++
	r.kinds[ev.Kind]++
	r.last, r.lastSeq = ev.Time, ev.Seq
	r.person(ev)
	r.row(ev)
	switch ev.Kind {
	case auditlog.AgentStart:
		text := "the agent was started: " + ev.Reason
		switch {
		case r.running:
			r.find("warning", ev.Time, ev.Seq, "agent restarted after an end without a last word", text)
		default:
			r.find("note", ev.Time, ev.Seq, "agent started", text)
		}
		r.running, r.stopped = true, false
	case auditlog.AgentStop:
		r.find("note", ev.Time, ev.Seq, "agent stopped", "until its next start nothing goes through, and nothing is recorded")
		r.running, r.stopped = false, true
	case auditlog.Gap:
		r.gap(ev)
	case auditlog.RetentionEvent:
		if t := ev.Retention; t != nil {
			r.find("note", ev.Time, ev.Seq, "events removed because of their age", fmt.Sprintf("%d events with index %d to %d, older than %s; their hashes stay in the log", t.Count, t.From, t.To-1, stamp(t.Before)))
		}
	case auditlog.PolicyLoad:
		r.policyLoad(ev)
		if ev.Reason != "" {
			r.find("note", ev.Time, ev.Seq, "a policy did not load", ev.Reason)
		}
	case auditlog.FlowOpen:
		if len(r.flows) < maxTracked {
			r.flows[ev.Flow] = openedBy(ev, false)
		} else {
			r.cut["open connections"]++
		}
	case auditlog.FlowClose:
		delete(r.flows, ev.Flow)
	case auditlog.FlowRefused:
		r.eligible++
		delete(r.flows, ev.Flow)
		r.deny(ev, "connect to "+ev.Destination)
		r.use(ev, "connect", "")
	case auditlog.BypassBlocked:
		process, uid := processOf(ev.Process)
		r.bypass.add(stamp(ev.Time), count(ev.Seq), process, uid, ev.Destination, ev.Reason)
	case auditlog.ActionEvent:
		r.action(ev)
	case auditlog.ApprovalRequest, auditlog.ApprovalDecide, auditlog.ApprovalView, auditlog.ApprovalExpire:
		r.approval(ev, false)
	case auditlog.Recording:
		r.recording(ev, raw)
	case auditlog.CompletenessEvent:
		r.completeness(ev)
	}
}

// recording reads its part of the event by name: packs are made of logs of any age.
func (r *report) recording(ev *auditlog.Event, raw []byte) {
	var x struct {
		Recording struct {
			Status  string `json:"status"`
			Stream  int    `json:"stream"`
			Type    string `json:"type"`
			Strict  string `json:"strict"`
			Sealed  bool   `json:"sealed"`
			Chunk   int    `json:"chunk"`
			SHA256  string `json:"sha256"`
			Bytes   int64  `json:"bytes"`
			Entries uint64 `json:"entries"`
			Lost    uint64 `json:"lost"`
		} `json:"recording"`
	}
	_ = json.Unmarshal(raw, &x) // what cannot be read stays empty
	c := x.Recording
	user, _ := userOf(ev.Principal)
	chunk := ""
	if c.Chunk > 0 {
		chunk = count(c.Chunk)
	}
	r.recordings.add(stamp(ev.Time), count(ev.Seq), user, ev.Backend, ev.Flow, count(c.Stream), c.Status, c.Type, c.Strict, yes(c.Sealed), chunk,
		number(c.Entries), number(c.Lost), number(uint64(max(c.Bytes, 0))), c.SHA256, ev.Reason)
	switch c.Status {
	case "torn", "failed":
		r.find("warning", ev.Time, ev.Seq, "recording "+c.Status, strings.TrimSpace(fmt.Sprintf("flow %s, stream %d: %s", ev.Flow, c.Stream, ev.Reason)))
	}
}

// account is a completeness event.
type account struct {
	*auditlog.Completeness
	seq uint64
	at  time.Time
}

// maxAccounts bounds accounts that are kept.
const maxAccounts = 10_000

// completeness keeps the account. Each account of a run holds all of the run, so the
// last one stands for those before it.
func (r *report) completeness(ev *auditlog.Event) {
	c := account{ev.Completeness, ev.Seq, ev.Time}
	if c.Completeness == nil {
		return
	}
	n := len(r.accounts)
	switch {
	case n > 0 && r.accounts[n-1].Run == c.Run && r.accounts[n-1].Scope != auditlog.ScopeBefore:
		r.accounts[n-1] = c
	case n < maxAccounts:
		r.accounts = append(r.accounts, c)
	default:
		r.cut["completeness"]++
	}
}

func (r *report) accountRows() {
	for _, c := range r.accounts {
		if c.Problem != "" {
			r.find("warning", c.at, c.seq, "no whole account of connections", c.Problem)
		}
		for _, b := range c.Backends {
			note := c.Scope
			if b.Carried+b.AgentLost > 0 {
				note += fmt.Sprintf("; %d carried over, %d lost with a killed agent before they were served", b.Carried, b.AgentLost)
			}
			r.complete.add(stamp(c.at), count(c.seq), b.Backend, whenText(c.From), whenText(c.To), count(b.Kernel.Redirected), count(b.Kernel.HandedOver), count(b.Opened), count(b.Refused), count(b.Unclaimed), count(b.UnderWay),
				count(b.Difference), join(note, c.Problem))
			if b.Difference != 0 {
				r.find("warning", c.at, c.seq, "connections and their records do not match", fmt.Sprintf("backend %s: of the connections that reached the agent, %d more than the log has records of", b.Backend, b.Difference))
			}
		}
	}
}

func processOf(p *auditlog.Process) (name, uid string) {
	if p == nil {
		return "", ""
	}
	return cmp.Or(p.Exe, p.Comm), strconv.FormatUint(uint64(p.UID), 10)
}

func (r *report) gap(ev *auditlog.Event) {
	detail := ev.Reason
	if g := ev.Gap; g != nil {
		detail = strings.TrimSpace(fmt.Sprintf("%s (%s), from %s to %s", detail, g.Cause, stamp(g.From), stamp(g.To)))
		if g.Lost > 0 {
			detail += fmt.Sprintf("; %d events could not be recorded, and what asked for them was refused", g.Lost)
		}
		if g.Unsure > 0 {
			detail += fmt.Sprintf("; %d events after event %d may be missing", g.Unsure, g.After)
		}
		if g.Bytes > 0 {
			detail += fmt.Sprintf("; %d bytes of an incomplete record were removed", g.Bytes)
		}
	}
	r.find("warning", ev.Time, ev.Seq, "gap in the record", detail)
}

func (r *report) policyLoad(ev *auditlog.Event) {
	if ev.Reason != "" {
		return
	}
	if n := len(r.revisions); n > 0 {
		r.revisions[n-1].to = ev.Time
	}
	r.revisions = append(r.revisions, revision{digest: ev.Policy, from: ev.Time, files: ev.PolicyFiles, seq: ev.Seq, text: len(ev.PolicyFiles) > 0})
}

// maxRevisions bounds policy revisions that are told apart.
const maxRevisions = 2000

func (r *report) deny(ev *auditlog.Event, what string) {
	user, _ := userOf(ev.Principal)
	by, resources := "policy", ""
	if ev.Action != nil {
		resources = strings.Join(ev.Action.Resources, " ")
		by = cmp.Or(ev.Action.RefusedBy, by)
	} else if ev.Rule == "" {
		by = "gateway"
	}
	r.denials.add(stamp(ev.Time), count(ev.Seq), user, ev.Backend, ev.Database, what, resources, by, ev.Rule, ev.Reason)
}

func denied(ev *auditlog.Event) bool {
	return ev.Verdict == "deny" || ev.Result != nil && ev.Result.Status == auditlog.StatusDenied
}

func (r *report) action(ev *auditlog.Event) {
	a := ev.Action
	if a == nil {
		return
	}
	key := ev.Flow + "/" + a.ID
	if a.Phase == auditlog.PhaseOutcome {
		p, known := r.pending[key]
		delete(r.pending, key)
		r.mask(ev)
		if known && p.what != "" && ev.Result != nil {
			if q := r.requests[p.what]; q != nil {
				q.outcome = ev.Result.Status
			}
		}
		return
	}
	r.actions++
	r.eligible++
	if a.Accesses != nil {
		for _, x := range a.Accesses {
			r.use(ev, x.Verb, x.Resource)
		}
	} else {
		for _, v := range a.Verbs {
			if len(a.Resources) == 0 {
				r.use(ev, v, "")
			}
			for _, res := range a.Resources {
				r.use(ev, v, res)
			}
		}
	}
	if denied(ev) {
		r.deny(ev, whatOf(a))
		return
	}
	o := openedBy(ev, false)
	o.what = ""
	if ev.Approval != nil {
		o.what = ev.Approval.ID
		if q := r.requests[ev.Approval.ID]; q != nil {
			q.runs++
			q.inPeriod = true
		}
	}
	if len(r.pending) < maxTracked {
		r.pending[key] = o
	} else {
		r.cut["actions under way"]++
	}
}

func (r *report) use(ev *auditlog.Event, verb, resource string) {
	user, issuer := "", ""
	if p := ev.Principal; p != nil {
		user, issuer = p.User, p.Issuer
	}
	k := usedKey{user, issuer, ev.Backend, ev.Database, ev.Login, verb, resource}
	u := r.usedBy[k]
	if u == nil {
		if len(r.usedBy) >= maxGroups {
			r.cut["use"]++
			return
		}
		u = &usedRow{first: ev.Time}
		r.usedBy[k] = u
	}
	u.last = ev.Time
	switch {
	case denied(ev):
		u.denied++
	case ev.Approval != nil:
		u.approved++
	default:
		u.allowed++
	}
}

func (r *report) mask(ev *auditlog.Event) {
	user, _ := userOf(ev.Principal)
	for _, m := range ev.Masks {
		k := maskKey{ev.Backend, ev.Database, m.Column, m.Method, m.Source, m.Detector}
		row := r.maskedBy[k]
		if row == nil {
			if len(r.maskedBy) >= maxGroups {
				r.cut["masks"]++
				continue
			}
			row = &maskRow{users: map[string]bool{}}
			r.maskedBy[k] = row
		}
		row.values += m.Count
		r.maskedValues += m.Count
		row.actions++
		if len(row.users) < 1000 {
			row.users[user] = true
		} else {
			row.more = row.more || !row.users[user]
		}
	}
}

func (r *report) person(ev *auditlog.Event) {
	p := ev.Principal
	if p == nil {
		return
	}
	k := personKey{p.Issuer, p.Subject}
	row := r.people[k]
	if row == nil {
		if len(r.people) >= maxGroups {
			r.cut["identities"]++
			return
		}
		row = &personRow{user: p.User, kind: p.Kind, groups: map[string]bool{}, first: ev.Time}
		r.people[k] = row
	}
	row.last = ev.Time
	row.actions++
	if _, acting := userOf(p); acting != "" && !strings.Contains(row.actors, acting) && len(row.actors) < maxCell {
		row.actors = strings.TrimSpace(row.actors + " " + acting)
	}
	for _, g := range p.Groups {
		if len(row.groups) < 1000 {
			row.groups[g] = true
		}
	}
	switch ev.Kind {
	case auditlog.IdentityBind:
		row.binds++
	case auditlog.IdentityUnbind:
		row.ends++
	}
}

func join(list, more string) string {
	if more == "" || list == more || strings.HasSuffix(list, "; "+more) || len(list) > maxCell {
		return list
	}
	if list == "" {
		return more
	}
	return list + "; " + more
}

func (r *report) approval(ev *auditlog.Event, before bool) {
	a := ev.Approval
	if a == nil {
		return
	}
	q := r.requests[a.ID]
	if q == nil {
		if len(r.requests) >= maxGroups {
			r.cut["approvals"]++
			return
		}
		q = &request{id: a.ID, at: ev.Time, seq: ev.Seq, requester: a.Requester, backend: ev.Backend, rule: ev.Rule, digest: a.Digest, before: before}
		r.requests[a.ID] = q
		r.order = append(r.order, a.ID)
	}
	q.inPeriod = q.inPeriod || !before
	q.status = cmp.Or(a.Status, q.status)
	q.ended = cmp.Or(a.Ended, q.ended)
	switch ev.Kind {
	case auditlog.ApprovalRequest:
		q.document = a.Document
		q.action = actionOfDocument(a.Document)
		if q.action == "" && ev.Action != nil {
			q.action = whatOf(ev.Action)
		}
	case auditlog.ApprovalView:
		q.views++
	case auditlog.ApprovalDecide:
		user, issuer := userOf(ev.Principal)
		_ = issuer
		iss := ""
		if ev.Principal != nil {
			iss = ev.Principal.Issuer
		}
		switch a.Decided {
		case "approved", "break_glass":
			q.approvers, q.proofs = join(q.approvers, user), join(q.proofs, a.Proof)
			q.glass = q.glass || a.Decided == "break_glass"
			fallthrough
		case "denied":
			q.reasons = join(q.reasons, a.Justification)
		}
		if len(a.Keys) > 0 {
			r.keySet(ev, iss)
		}
		if !before {
			r.decisions.add(stamp(ev.Time), count(ev.Seq), a.ID, user, iss, a.Decided, a.Justification, a.Proof, yes(a.Token != ""), ev.Reason)
		}
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// actionOfDocument is the statements that approvers saw.
func actionOfDocument(doc string) string {
	var d struct {
		Scope struct {
			Actions []struct {
				Text      string   `json:"text"`
				Verbs     []string `json:"verbs"`
				Resources []string `json:"resources"`
			} `json:"actions"`
		} `json:"scope"`
	}
	if json.Unmarshal([]byte(doc), &d) != nil {
		return ""
	}
	text := ""
	for _, a := range d.Scope.Actions {
		text = join(text, cmp.Or(a.Text, strings.Join(a.Verbs, ",")+" "+strings.Join(a.Resources, " ")))
	}
	return text
}

func (r *report) keySet(ev *auditlog.Event, issuer string) {
	sum := sha256.Sum256(ev.Approval.Keys)
	k := r.keySets[sum]
	if k == nil {
		if len(r.keySets) >= 1000 {
			r.cut["keys"]++
			return
		}
		k = &keyRow{set: ev.Approval.Keys, issuer: issuer, first: ev.Time}
		r.keySets[sum] = k
	}
	k.used++
}

// row writes the event's row of the list.
func (r *report) row(ev *auditlog.Event) {
	user, acting := userOf(ev.Principal)
	process, uid := processOf(ev.Process)
	c := []string{count(ev.Seq), stamp(ev.Time), string(ev.Kind), user, acting, ev.Session, ev.Flow, ev.Backend, ev.Protocol, ev.Database, ev.Login,
		"", "", "", ev.Verdict, ev.Rule, ev.Reason, "", "", "", "", "", "", process, uid, ev.Policy}
	if a := ev.Action; a != nil {
		c[11], c[12], c[13] = strings.Join(a.Verbs, " "), strings.Join(a.Resources, " "), a.Text
	}
	if ev.Approval != nil {
		c[17] = ev.Approval.ID
	}
	if x := ev.Result; x != nil {
		c[18], c[19], c[20], c[21] = x.Status, x.Code, count(x.Rows), count(x.Bytes)
	}
	if len(ev.Masks) > 0 {
		n := int64(0)
		for _, m := range ev.Masks {
			n += m.Count
		}
		c[22] = count(n)
	}
	r.list.add(c...)
}

func sortedKeys[K comparable, V any](m map[K]V, less func(a, b K) int) []K {
	return slices.SortedFunc(maps.Keys(m), less)
}

// finish writes the rows of what was counted.
func (r *report) finish(open opener, cases []*caseOf) error {
	r.accountRows()
	r.limits()
	for _, k := range sortedKeys(r.usedBy, func(a, b usedKey) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.issuer, b.issuer), cmp.Compare(a.backend, b.backend), cmp.Compare(a.database, b.database),
			cmp.Compare(a.login, b.login), cmp.Compare(a.verb, b.verb), cmp.Compare(a.resource, b.resource))
	}) {
		u := r.usedBy[k]
		r.used.add(cmp.Or(k.user, "(nobody signed in)"), k.issuer, k.backend, k.database, k.login, k.verb, k.resource, count(u.allowed), count(u.approved), count(u.denied), stamp(u.first), stamp(u.last))
	}
	for _, id := range r.order {
		q := r.requests[id]
		if !q.inPeriod {
			continue
		}
		r.approvals.add(stamp(q.at), count(q.seq), q.id, q.requester, q.backend, q.rule, q.action, join(q.status, q.ended), q.approvers, q.reasons, q.proofs, yes(q.glass), count(q.runs), q.outcome, q.digest)
	}
	for _, k := range sortedKeys(r.maskedBy, func(a, b maskKey) int {
		return cmp.Or(cmp.Compare(a.backend, b.backend), cmp.Compare(a.database, b.database), cmp.Compare(a.column, b.column), cmp.Compare(a.method, b.method), cmp.Compare(a.source, b.source), cmp.Compare(a.detector, b.detector))
	}) {
		m := r.maskedBy[k]
		people := count(len(m.users))
		if m.more {
			people += " or more"
		}
		r.masks.add(k.backend, k.database, k.column, k.method, k.source, k.detector, count(m.values), count(m.actions), people)
	}
	for _, k := range sortedKeys(r.people, func(a, b personKey) int {
		return cmp.Or(cmp.Compare(r.people[a].user, r.people[b].user), cmp.Compare(a.issuer, b.issuer), cmp.Compare(a.subject, b.subject))
	}) {
		p := r.people[k]
		r.identities.add(p.user, k.subject, k.issuer, p.kind, strings.Join(slices.Sorted(maps.Keys(p.groups)), " "), p.actors, count(p.binds), count(p.ends), count(p.actions), stamp(p.first), stamp(p.last))
	}
	r.policyRows()
	r.keyRows()
	if err := r.headRows(open); err != nil {
		return err
	}
	for _, c := range cases {
		r.sample.add(c.row()...)
	}
	r.controlRows()
	return nil
}

// limits states what is known to be missing.
func (r *report) limits() {
	if r.events == 0 {
		r.find("warning", time.Time{}, 0, "no events", "the log has no event in the period: either nothing happened, or nothing was recorded")
	}
	u := r.m.Unsealed
	if u.Events > 0 {
		r.find("warning", time.Time{}, 0, "events not sealed yet", fmt.Sprintf("%d events of the period (number %d to %d) were not in the sealed log when the pack was made, so they are not in it", u.Events, u.First, u.Last))
	}
	if u.Unknown != "" {
		r.find("warning", time.Time{}, 0, "events not sealed yet: not known", u.Unknown)
	}
	for _, g := range r.proof.Removed {
		r.find("warning", time.Time{}, 0, "events removed", fmt.Sprintf("%d events with index %d to %d are not in the log any more; their hashes are, so that nothing else can stand in their place", g.To-g.From, g.From, g.To-1))
	}
	r.unended(r.flows, "connection without an end", "it was open at the end of the period, or its end was not recorded")
	r.unended(r.pending, "action without an outcome", "it was under way at the end of the period, or its end was not recorded")
	if len(r.revisions) == 0 {
		r.find("warning", time.Time{}, 0, "no policy known", "no event says which policy was in force")
	}
	for _, v := range r.revisions {
		if !v.text {
			r.find("warning", v.from, v.seq, "policy without its text", v.digest+": the log has the digest alone")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.cut)) {
		r.find("warning", time.Time{}, 0, "a table is not complete", fmt.Sprintf("%s: %d events did not fit into the report's memory; events.jsonl has them", name, r.cut[name]))
	}
}

// maxUnended bounds rows of a kind of limit.
const maxUnended = 1000

func (r *report) unended(m map[string]opened, what, why string) {
	list := slices.SortedFunc(maps.Values(m), func(a, b opened) int { return cmp.Compare(a.seq, b.seq) })
	for i, o := range list {
		if i == maxUnended {
			r.find("note", time.Time{}, 0, what, fmt.Sprintf("%d more", len(list)-i))
			return
		}
		r.find("note", o.at, o.seq, what, strings.TrimSpace(fmt.Sprintf("%s at %s: %s", cmp.Or(o.user, "somebody"), o.backend, why)))
	}
}
