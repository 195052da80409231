package completeness

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// tail is what the log has behind the last account in it.
type tail struct {
	last    *auditlog.Completeness // nil: there is none
	flows   map[string]*counts
	damaged bool
}

// Before is the account of the time before this run: what the kernel has counted since
// the last account, against the flows that the log has behind it. spool is the folder of
// the log, through the seq of its last event before any flow of this run. It reads the
// newest segments only, back to that account: accounts are hourly.
func (l *Ledger) Before(ctx context.Context, spool string, through uint64) (*auditlog.Completeness, error) {
	t, err := readTail(ctx, spool, through)
	if err != nil {
		return nil, err
	}
	s := &l.start
	out := &auditlog.Completeness{Scope: auditlog.ScopeBefore, From: s.Counting.UTC(), To: l.config.Started.UTC(), Run: s.Run, Counting: s.Counting.UTC(), Backends: []auditlog.FlowCount{}}
	then := make(map[string]auditlog.FlowCount)
	crashed := true
	switch {
	case t.last == nil && s.Run == 1:
		return out, nil // the first run on these maps
	case t.last == nil:
		out.Problem = "the log holds no account of an earlier run"
	default:
		out.From = t.last.To
		crashed = t.last.Scope != auditlog.ScopeStop
		for _, b := range t.last.Backends {
			then[b.Backend] = b
		}
	}
	if t.damaged {
		out.Problem = "a part of the log behind the last account cannot be read"
	}
	anew := t.last != nil && !t.last.Counting.Equal(s.Counting.UTC())
	if anew && (crashed || len(t.flows) > 0) {
		out.Problem = "the kernel has counted anew since the last account (a reboot, or the hooks were taken out): what happened in between is known from the log alone"
	}
	names := make(map[string]bool)
	for name := range s.Base {
		names[name] = true
	}
	for name := range t.flows {
		names[name] = true
	}
	for name := range then {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b, ok := then[name], true
		row := auditlog.FlowCount{Backend: name, Total: s.Base[name], Carried: b.UnderWay}
		if c := t.flows[name]; c != nil {
			row.Opened, row.Refused, row.Early = c.opened, c.refused, c.early
		}
		if t.last != nil && !anew {
			row.Kernel, ok = row.Total.Minus(b.Total)
		}
		row.Unclaimed = row.Kernel.Unclaimed
		if !ok {
			out.Problem = cmp.Or(out.Problem, "the kernel's counters are lower than in the last account")
		}
		if out.Problem == "" {
			rest := int64(row.Kernel.HandedOver+row.Carried) - int64(row.Unclaimed+row.Opened+row.Refused)
			if crashed && rest > 0 {
				row.AgentLost, rest = uint64(rest), 0
			}
			row.Difference = rest
		}
		if row.Kernel != (auditlog.KernelFlows{}) || row.Opened+row.Refused+row.Carried > 0 || row.Difference != 0 {
			out.Backends = append(out.Backends, row)
		}
	}
	return out, nil
}

// readTail reads segments from the newest back to the one with the last account.
func readTail(ctx context.Context, spool string, through uint64) (*tail, error) {
	segments, err := auditlog.Segments(spool)
	if err != nil {
		return nil, err
	}
	t := &tail{flows: make(map[string]*counts)}
	for _, n := range slices.Backward(segments) {
		one, err := readSegment(ctx, spool, n, through)
		if err != nil {
			return nil, err
		}
		t.damaged = t.damaged || one.damaged
		for name, c := range one.flows {
			sum := t.flows[name]
			if sum == nil {
				sum = new(counts)
				t.flows[name] = sum
			}
			sum.opened += c.opened
			sum.refused += c.refused
			sum.early += c.early
		}
		if one.last != nil {
			t.last = one.last
			break
		}
	}
	return t, nil
}

// ofInterest begins every payload that readSegment decodes. A text in an event cannot hold
// these bytes: its quotes are escaped.
var ofInterest = [][]byte{[]byte(`,"kind":"flow.`), []byte(`,"kind":"completeness"`)}

func readSegment(ctx context.Context, spool string, n, through uint64) (*tail, error) {
	r, err := auditlog.OpenDirSegment(spool, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	t := &tail{flows: make(map[string]*counts)}
	for ctx.Err() == nil {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		switch {
		case errors.As(err, &damage):
			t.damaged = true
			return t, nil
		case err == io.EOF:
			return t, nil
		case err != nil:
			return nil, err
		case rec.End.Segment > n, rec.Seq > through:
			return t, nil
		}
		if rec.Kind == auditlog.RecordEvent && (bytes.Contains(rec.Payload, ofInterest[0]) || bytes.Contains(rec.Payload, ofInterest[1])) {
			var ev auditlog.Event
			if err := json.Unmarshal(rec.Payload, &ev); err != nil {
				t.damaged = true
				continue
			}
			t.observe(&ev)
		}
	}
	return nil, context.Cause(ctx)
}

func (t *tail) observe(ev *auditlog.Event) {
	switch {
	case ev.Kind == auditlog.CompletenessEvent && ev.Completeness != nil:
		t.last = ev.Completeness
		clear(t.flows)
	case ev.Flow != "" && (ev.Kind == auditlog.FlowOpen || ev.Kind == auditlog.FlowRefused):
		c := t.flows[ev.Backend]
		if c == nil {
			c = new(counts)
			t.flows[ev.Backend] = c
		}
		if ev.Kind == auditlog.FlowOpen {
			c.opened++
			break
		}
		c.refused++
		if ev.Reason == clientClosed {
			c.early++
		}
	}
}

// Every is how often the agent records its account.
const Every = time.Hour

// lookEvery is how often it looks in between, so that what waits is told from what is
// missing.
const lookEvery = 10 * time.Second

// Run looks at the account until ctx ends, and records it every hour. What fails is told
// to failed, and tried again.
func (l *Ledger) Run(ctx context.Context, failed func(error)) {
	look, hourly := time.NewTicker(lookEvery), time.NewTicker(Every)
	defer look.Stop()
	defer hourly.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			_, err = l.Account(auditlog.ScopeRun)
		case <-hourly.C:
			_, err = l.Record(ctx, auditlog.ScopeRun)
		}
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
	}
}
