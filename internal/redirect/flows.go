package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/weirproxy/weir/bpf"
)

// maxBackendName is WEIR_BACKEND_LEN of bpf/lib/types.h, less the zero at the end.
const maxBackendName = 63

// FlowCounts is what became of the connections to one backend, as the kernel counted
// it: since its maps were made, over restarts of the agent, not over a reboot.
type FlowCounts struct {
	Redirected    uint64 // connects rewritten to the proxy
	HandedOver    uint64 // of those: arrived at the agent's listener with their note
	Unclaimed     uint64 // of those: ended before Accept returned them
	Abandoned     uint64 // ended before the handshake did: nobody listened, or the client left
	Unpublished   uint64 // arrived without a note for lack of room, and were closed
	AcceptStorage uint64 // arrived without a note for lack of memory, and were closed
	DeniedFull    uint64 // refused in connect(2), ECONNREFUSED: no room for the hand-over
	DeniedStorage uint64 // refused in connect(2), ECONNREFUSED: no memory for the note
	DeniedUnready uint64 // refused in connect(2), ECONNREFUSED: no agent had set the port
	UDPDenied     uint64 // datagrams refused, EPERM
}

// flowCounts reads flows_v1.
type flowCounts struct {
	mu    sync.Mutex
	table *ebpf.Map // nil once the redirector is closed
	since time.Time // when the oldest entry was made
	base  map[string]FlowCounts
	last  map[string]FlowCounts // what end has read
}

type flowRow struct {
	key   bpf.RedirectWeirFlowsKey
	value bpf.RedirectWeirFlows
}

func (row *flowRow) name() string {
	name, _, _ := bytes.Cut(row.value.Name[:], []byte{0})
	return string(name)
}

// begin makes this run's entries. Those of earlier runs stay, for clients of theirs may
// still be on their way; the oldest go when there is no room.
func (f *flowCounts) begin(table *ebpf.Map, backends []string, generation uint32, now time.Time) error {
	rows, err := readFlowRows(table)
	if err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b flowRow) int { return int(int64(a.key.Generation) - int64(b.key.Generation)) })
	for len(rows) > 0 && len(rows)+len(backends) > int(table.MaxEntries()) {
		if err := table.Delete(&rows[0].key); err != nil {
			return fmt.Errorf("make room for this run's counters: %w", err)
		}
		rows = rows[1:]
	}
	for i, name := range backends {
		if len(name) > maxBackendName {
			return fmt.Errorf("backend %q: a name has at most %d bytes", name, maxBackendName)
		}
		row := flowRow{bpf.RedirectWeirFlowsKey{Generation: generation, Backend: uint32(i)}, bpf.RedirectWeirFlows{Made: uint64(now.UnixNano())}}
		copy(row.value.Name[:], name)
		if err := table.Put(&row.key, &row.value); err != nil {
			return fmt.Errorf("count the connections to backend %q: %w", name, err)
		}
		rows = append(rows, row)
	}
	f.since = now
	for _, row := range rows {
		if at := time.Unix(0, int64(row.value.Made)); at.Before(f.since) {
			f.since = at
		}
	}
	f.table = table
	f.base, err = f.read()
	return err
}

func readFlowRows(table *ebpf.Map) ([]flowRow, error) {
	var rows []flowRow
	var row flowRow
	it := table.Iterate()
	for it.Next(&row.key, &row.value) {
		rows = append(rows, row)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the counters of connections: %w", err)
	}
	return rows, nil
}

// read sums the entries by name. What happens to a connection later is read earlier:
// first what ended unclaimed, then what was handed over, then what was redirected. So
// no connection is seen in a later state without its earlier one, whatever goes on
// meanwhile. The set of keys does not change while an agent runs.
func (f *flowCounts) read() (map[string]FlowCounts, error) {
	rows, err := readFlowRows(f.table)
	if err != nil {
		return nil, err
	}
	out := make(map[string]FlowCounts)
	for _, row := range rows {
		var unclaimed, arrived, all bpf.RedirectWeirFlows
		for _, to := range []*bpf.RedirectWeirFlows{&unclaimed, &arrived, &all} {
			if err := f.table.Lookup(&row.key, to); err != nil {
				return nil, fmt.Errorf("read the counters of connections: %w", err)
			}
		}
		c := out[row.name()]
		c.Unclaimed += unclaimed.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_UNCLAIMED]
		c.HandedOver += arrived.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_HANDED_OVER]
		c.Abandoned += arrived.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_ABANDONED]
		c.Unpublished += arrived.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_UNPUBLISHED]
		c.AcceptStorage += arrived.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_ACCEPT_STORAGE]
		c.Redirected += all.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_REDIRECTED]
		c.DeniedFull += all.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_DENIED_FULL]
		c.DeniedStorage += all.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_DENIED_STORAGE]
		c.DeniedUnready += all.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_DENIED_UNREADY]
		c.UDPDenied += all.N[bpf.RedirectWeirFlowCounterWEIR_FLOW_UDP_DENIED]
		out[row.name()] = c
	}
	return out, nil
}

func (f *flowCounts) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table != nil {
		f.last, _ = f.read()
		f.table = nil
	}
}

// FlowCounts returns the kernel's counters by the name of the backend, those of
// backends that are not configured any more included. After Close it returns what they
// were at the end: every connection that was waiting for Accept is counted then.
//
// To compare them with what became of the connections that Accept returned, read that
// before: then HandedOver - Unclaimed is never less than what Accept returned, and more
// only by what waits for Accept.
func (r *Redirector) FlowCounts() (map[string]FlowCounts, error) {
	f := &r.flows
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.table != nil:
		return f.read()
	case f.last != nil:
		return f.last, nil
	}
	return nil, errors.New("the counters of connections could not be read when the redirect ended")
}

// FlowBase is what FlowCounts was before this agent listened.
func (r *Redirector) FlowBase() map[string]FlowCounts { return r.flows.base }

// FlowsSince is when the kernel began to count.
func (r *Redirector) FlowsSince() time.Time { return r.flows.since }

// Generation counts the runs of agents on the folder.
func (r *Redirector) Generation() uint32 { return r.generation }
