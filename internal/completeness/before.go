package completeness

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
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
// the last account, against the flows that the log has behind it. It reads the end of the
// log only, back to that account: there is one for every ten minutes.
func (l *Ledger) Before(ctx context.Context, log Log) (*auditlog.Completeness, error) {
	t, err := log.tail(ctx)
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

// Log is where the log is.
type Log struct {
	StateDir string
	Key      auditlog.PublicKey
	Through  uint64 // seq of the last event before any flow of this run
}

// tail reads the spool's segments from the newest back to the one with the last account,
// and where that was removed from there already, the sealed log.
func (log Log) tail(ctx context.Context) (*tail, error) {
	spool := auditlog.SpoolDir(log.StateDir)
	segments, err := auditlog.Segments(spool)
	if err != nil {
		return nil, err
	}
	t, first := &tail{flows: make(map[string]*counts)}, log.Through+1
	for _, n := range slices.Backward(segments) {
		one, begins, err := readSegment(ctx, spool, n, log.Through)
		if errors.Is(err, fs.ErrNotExist) {
			break // it was sealed, and removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		if t.behind(one) {
			return t, nil
		}
		first = min(first, begins)
	}
	return t, log.sealedTail(ctx, t, first)
}

// window is how many events of the sealed log are read at a time, which are at most so
// many times auditlog.MaxPayload, one after the other.
const window = 4096

// sealedTail goes on in the sealed log with what comes before the event first.
func (log Log) sealedTail(ctx context.Context, t *tail, first uint64) error {
	tiles, err := auditlog.OpenTiles(auditlog.TilesDir(log.StateDir), log.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever sealed
	}
	if err != nil {
		t.damaged = true
		return nil
	}
	for to := tiles.Head().Size; to > 0; {
		from := to - min(to, window)
		one := &tail{flows: make(map[string]*counts)}
		for e, err := range tiles.Entries(from, to) {
			var removed *auditlog.RemovedError
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.As(err, &removed):
				return nil // older than what is kept
			case err != nil:
				t.damaged = true
				return nil
			case e.Seq < first:
				one.read(e.Payload)
			}
		}
		if t.behind(one) {
			return nil
		}
		to = from
	}
	return nil
}

// behind adds a part that comes right before t; true when the last account was in it.
func (t *tail) behind(one *tail) bool {
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
	t.last = one.last
	return t.last != nil
}

// ofInterest begins every payload that readSegment decodes. A text in an event cannot hold
// these bytes: its quotes are escaped.
var ofInterest = [][]byte{[]byte(`,"kind":"flow.`), []byte(`,"kind":"completeness"`)}

// readSegment also returns the seq of the segment's first event.
func readSegment(ctx context.Context, spool string, n, through uint64) (*tail, uint64, error) {
	r, err := auditlog.OpenDirSegment(spool, n)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	t, first := &tail{flows: make(map[string]*counts)}, r.Header().First
	for ctx.Err() == nil {
		rec, err := r.Next()
		var damage *auditlog.DamageError
		switch {
		case errors.As(err, &damage):
			// The oldest go first: if this one is still there, so is what follows it.
			if _, err := os.Stat(filepath.Join(spool, auditlog.SegmentName(n))); errors.Is(err, fs.ErrNotExist) {
				return nil, 0, err
			}
			t.damaged = true
			return t, first, nil
		case err == io.EOF:
			return t, first, nil
		case err != nil:
			return nil, 0, err
		case rec.End.Segment > n, rec.Seq > through:
			return t, first, nil
		}
		if rec.Kind == auditlog.RecordEvent {
			t.read(rec.Payload)
		}
	}
	return nil, 0, context.Cause(ctx)
}

func (t *tail) read(payload []byte) {
	if !bytes.Contains(payload, ofInterest[0]) && !bytes.Contains(payload, ofInterest[1]) {
		return
	}
	var ev auditlog.Event
	if err := json.Unmarshal(payload, &ev); err != nil {
		t.damaged = true
		return
	}
	t.observe(&ev)
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

// Every is how often the agent records its account. An agent that starts reads the log
// back to the last account, so this bounds how far.
const Every = 10 * time.Minute

// lookEvery is how often it looks in between: so what waits is told from what is missing,
// and what is missing is recorded at once.
const lookEvery = 2 * time.Second

// Run looks at the account until ctx ends, and records it every ten minutes and when
// what it does not explain is another than in the one before. That is told to differs,
// what fails to failed, and tried again.
func (l *Ledger) Run(ctx context.Context, differs func(why string), failed func(error)) {
	look, regular := time.NewTicker(lookEvery), time.NewTicker(Every)
	defer look.Stop()
	defer regular.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			err = l.look(ctx, differs)
		case <-regular.C:
			_, err = l.Record(ctx, auditlog.ScopeRun)
		}
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
	}
}

// look records an account that differs otherwise than the last.
func (l *Ledger) look(ctx context.Context, differs func(why string)) error {
	c, err := l.Account(auditlog.ScopeRun)
	if err != nil || Why(c) == l.Said() {
		return err
	}
	if c, err = l.Record(ctx, auditlog.ScopeRun); err != nil {
		return err
	}
	if why := Why(c); why != "" {
		differs(why)
	}
	return nil
}
