package evidence

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// A case is an event that says what was decided: the intent of an action, or a
// refused connection. The cases of a pack are numbered from 0 in the order of
// events.jsonl. Draw i takes the case with the number
//
//	first 8 bytes, big-endian, of SHA-256("weir-sample-v1\n" + seed + "\n" + i + "\n"), modulo the number of cases
//
// with i in decimal from 0 on; a case that was drawn before is passed over, and
// drawing ends with as many as were asked for, or all.
const drawText = "weir-sample-v1\n"

// drawAt is draw i.
func drawAt(seed string, i, cases uint64) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s%s\n%d\n", drawText, seed, i))
	return binary.BigEndian.Uint64(sum[:]) % cases
}

// caseOf is one case of a sample.
type caseOf struct {
	n        int    // from 1, in the order they were drawn
	draw     uint64 // i
	position uint64 // its number among the cases
	index    uint64
	event    auditlog.Event
	raw      json.RawMessage
	chain    []chainEvent
	proof    []auditlog.Hash
}

// chainEvent is an event that belongs to a case: the sign-in, the connection, the
// request for approval and what became of it, the outcome.
type chainEvent struct {
	Seq   uint64          `json:"seq"`
	Role  string          `json:"role"`
	Event json.RawMessage `json:"event"`
}

// sampleLine is a line of sample.jsonl.
type sampleLine struct {
	Case      int             `json:"case"`
	Draw      uint64          `json:"draw"`
	Position  uint64          `json:"position"`
	Index     uint64          `json:"index"`
	Leaf      hashText        `json:"leaf_hash"`
	Inclusion []hashText      `json:"inclusion"`
	Event     json.RawMessage `json:"event"`
	Chain     []chainEvent    `json:"chain"`
}

func (c *caseOf) line() (*sampleLine, error) {
	leaf, err := auditlog.Leaf(c.raw)
	chain := c.chain
	if chain == nil {
		chain = []chainEvent{}
	}
	return &sampleLine{Case: c.n, Draw: c.draw, Position: c.position, Index: c.index, Leaf: hashText(auditlog.LeafHash(leaf)), Inclusion: texts(c.proof), Event: c.raw, Chain: chain}, err
}

func (c *caseOf) row() []string {
	ev := &c.event
	user, _ := userOf(ev.Principal)
	what, approval, approvers, result := "connect to "+ev.Destination, "", "", ""
	if ev.Action != nil {
		what = whatOf(ev.Action)
	}
	if ev.Approval != nil {
		approval, approvers = ev.Approval.ID, strings.Join(ev.Approval.Approvers, " ")
	}
	if ev.Result != nil {
		result = ev.Result.Status
	}
	for _, x := range c.chain {
		var o auditlog.Event
		if x.Role == "outcome" && json.Unmarshal(x.Event, &o) == nil && o.Result != nil {
			result = o.Result.Status
		}
	}
	return []string{count(c.n), count(c.draw), count(c.position), stamp(ev.Time), count(ev.Seq), count(c.index), user, ev.Backend, what, ev.Verdict, ev.Rule, approval, approvers, result}
}

func isCase(ev *auditlog.Event) bool {
	return ev.Kind == auditlog.FlowRefused || ev.Kind == auditlog.ActionEvent && ev.Action != nil && ev.Action.Phase != auditlog.PhaseOutcome
}

// maxChain bounds the events of one case's chain.
const maxChain = 64

// draw picks the cases and what belongs to them, in two more passes over the events.
func (r *report) draw(ctx context.Context, open opener) ([]*caseOf, error) {
	if r.m.Sample == 0 || r.eligible == 0 {
		return nil, nil
	}
	at := map[uint64]*caseOf{}
	var cases []*caseOf
	for i := uint64(0); len(cases) < r.m.Sample && uint64(len(cases)) < r.eligible; i++ {
		n := drawAt(r.m.Seed, i, r.eligible)
		if at[n] == nil {
			at[n] = &caseOf{n: len(cases) + 1, draw: i, position: n}
			cases = append(cases, at[n])
		}
	}
	seen := make(nodes)
	number := uint64(0)
	if err := r.pass(ctx, open, nil, func(index uint64, ev *auditlog.Event, raw []byte) {
		if !isCase(ev) {
			return
		}
		if c := at[number]; c != nil {
			c.index, c.event, c.raw = index, *ev, bytes.Clone(raw)
		}
		number++
	}); err != nil {
		return nil, err
	}
	by := map[string][]*caseOf{}
	for _, c := range cases {
		if err := seen.want(c.index, r.proof.Size); err != nil {
			return nil, err
		}
		ev := &c.event
		keys := []string{"flow " + ev.Flow, "session " + ev.Session}
		if ev.Action != nil {
			keys = append(keys, "action "+ev.Flow+"/"+ev.Action.ID)
		}
		if ev.Approval != nil {
			keys = append(keys, "approval "+ev.Approval.ID)
		}
		for _, k := range keys {
			if !strings.HasSuffix(k, " ") {
				by[k] = append(by[k], c)
			}
		}
	}
	link := func(ev *auditlog.Event, raw []byte) {
		role, keys := roleOf(ev)
		for _, k := range keys {
			for _, c := range by[k] {
				if c.event.Seq != ev.Seq && len(c.chain) < maxChain {
					c.chain = append(c.chain, chainEvent{ev.Seq, role, bytes.Clone(raw)})
				}
			}
		}
	}
	if err := eachLine(open, contextFile, func(line []byte) error {
		var x contextEvent
		var ev auditlog.Event
		if err := strict(line, &x); err != nil {
			return err
		}
		if err := json.Unmarshal(x.Event, &ev); err != nil {
			return err
		}
		link(&ev, x.Event)
		return nil
	}); err != nil {
		return nil, err
	}
	if err := r.pass(ctx, open, seen, func(_ uint64, ev *auditlog.Event, raw []byte) { link(ev, raw) }); err != nil {
		return nil, err
	}
	for _, c := range cases {
		var err error
		if c.proof, err = seen.path(c.index, r.proof.Size); err != nil {
			return nil, err
		}
		slices.SortStableFunc(c.chain, func(a, b chainEvent) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	return cases, nil
}

// roleOf says what an event is to a case, and by which of its keys.
func roleOf(ev *auditlog.Event) (role string, keys []string) {
	switch ev.Kind {
	case auditlog.IdentityBind:
		return "sign-in", []string{"session " + ev.Session}
	case auditlog.FlowOpen:
		return "connection", []string{"flow " + ev.Flow}
	case auditlog.ActionEvent:
		if ev.Action != nil && ev.Action.Phase == auditlog.PhaseOutcome {
			return "outcome", []string{"action " + ev.Flow + "/" + ev.Action.ID}
		}
	case auditlog.ApprovalRequest, auditlog.ApprovalDecide, auditlog.ApprovalView, auditlog.ApprovalExpire:
		if ev.Approval != nil {
			return string(ev.Kind), []string{"approval " + ev.Approval.ID}
		}
	}
	return "", nil
}

// pass reads the events once more; with seen it leads them to the root on the way.
func (r *report) pass(ctx context.Context, open opener, seen nodes, each func(index uint64, ev *auditlog.Event, raw []byte)) error {
	see := seen.see
	if seen == nil {
		see = nil
	}
	w, err := walk(r.proof, see)
	if err != nil {
		return err
	}
	n := 0
	if err := eachLine(open, eventsFile, func(line []byte) error {
		if n++; n&0xfff == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		index, err := w.add(line)
		if err != nil {
			return err
		}
		var ev auditlog.Event
		if err := json.Unmarshal(line, &ev); err != nil {
			return err
		}
		each(index, &ev, line)
		return nil
	}); err != nil {
		return err
	}
	return w.end()
}
