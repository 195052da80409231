package redirect

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproxy/weir/bpf"
)

// Status is a snapshot of everything that this package owns.
type Status struct {
	BPFFS        string            `json:"bpffs"`
	ProxyPort    uint16            `json:"proxy_port"`
	AgentCgroup  string            `json:"agent_cgroup"`
	Generation   uint32            `json:"generation"` // counts the runs of agents on this folder
	Cgroups      []CgroupStatus    `json:"cgroups"`
	Namespaces   []NamespaceStatus `json:"namespaces"`
	Destinations []Destination     `json:"destinations"`
	Handovers    int               `json:"handovers"` // between connect and accept, now
	Counters     Counters          `json:"counters"`
}

// CgroupStatus is one cgroup with programs attached.
type CgroupStatus struct {
	Path  string       `json:"path"`
	ID    uint64       `json:"id"`
	Kind  Kind         `json:"kind"`
	Links []LinkStatus `json:"links"`
}

// LinkStatus is one attached program.
type LinkStatus struct {
	Program   string `json:"program"`
	ID        uint32 `json:"id"`         // of the link
	ProgramID uint32 `json:"program_id"` // differs from what was loaded when somebody replaced it
	Error     string `json:"error,omitempty"`
}

// NamespaceStatus is one network namespace that is served.
type NamespaceStatus struct {
	Cookie     uint64           `json:"cookie"`
	Inode      uint64           `json:"inode"`
	Own        bool             `json:"own"`         // the agent's
	LoopbackUp bool             `json:"loopback_up"` // without it redirected connects hang
	Listeners  []netip.AddrPort `json:"listeners"`
	Problems   []string         `json:"problems,omitempty"`
}

// Counters are the kernel's numbers since the maps were made; they outlive agents.
// Redirected is HandedOver plus Abandoned plus Unpublished plus what is under way,
// but for connects that failed after the hook and before their SYN.
type Counters struct {
	Redirected    uint64 `json:"redirected"`     // connects rewritten to the proxy
	HandedOver    uint64 `json:"handed_over"`    // records that reached an accepted socket
	Abandoned     uint64 `json:"abandoned"`      // clients that closed before they were accepted
	DeniedFull    uint64 `json:"denied_full"`    // connects refused: the hand-over table was full
	DeniedStorage uint64 `json:"denied_storage"` // connects refused: no memory for the record
	DeniedUnready uint64 `json:"denied_unready"` // connects refused: no proxy port set
	Unpublished   uint64 `json:"unpublished"`    // redirected, but the table was full a moment later
	NoRecord      uint64 `json:"no_record"`      // connections to the proxy port without a record
	AcceptStorage uint64 `json:"accept_storage"` // records lost: no memory on the accepted socket
	UDPDenied     uint64 `json:"udp_denied"`     // datagrams to protected destinations refused
	Exempt        uint64 `json:"exempt"`         // the agent's own connects to protected destinations
	BindDenied    uint64 `json:"bind_denied"`    // attempts of others to bind the proxy port
}

// Counters reads the kernel's counters.
func (r *Redirector) Counters() (Counters, error) {
	var c Counters
	for which, to := range map[bpf.RedirectWeirCounter]*uint64{
		bpf.RedirectWeirCounterWEIR_REDIRECTED:     &c.Redirected,
		bpf.RedirectWeirCounterWEIR_HANDED_OVER:    &c.HandedOver,
		bpf.RedirectWeirCounterWEIR_ABANDONED:      &c.Abandoned,
		bpf.RedirectWeirCounterWEIR_DENIED_FULL:    &c.DeniedFull,
		bpf.RedirectWeirCounterWEIR_DENIED_STORAGE: &c.DeniedStorage,
		bpf.RedirectWeirCounterWEIR_DENIED_UNREADY: &c.DeniedUnready,
		bpf.RedirectWeirCounterWEIR_UNPUBLISHED:    &c.Unpublished,
		bpf.RedirectWeirCounterWEIR_NO_RECORD:      &c.NoRecord,
		bpf.RedirectWeirCounterWEIR_ACCEPT_STORAGE: &c.AcceptStorage,
		bpf.RedirectWeirCounterWEIR_UDP_DENIED:     &c.UDPDenied,
		bpf.RedirectWeirCounterWEIR_EXEMPT:         &c.Exempt,
		bpf.RedirectWeirCounterWEIR_BIND_DENIED:    &c.BindDenied,
	} {
		var perCPU []uint64
		if err := r.objects.CountersV1.Lookup(uint32(which), &perCPU); err != nil {
			return c, err
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	return c, nil
}

// Status looks at everything anew. Links are asked in the kernel, not remembered.
func (r *Redirector) Status() (Status, error) {
	if r.isClosed() {
		return Status{}, ErrClosed
	}
	counters, err := r.Counters()
	if err != nil {
		return Status{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		BPFFS: r.config.BPFFS, ProxyPort: r.config.ProxyPort, AgentCgroup: r.agent.path, Generation: r.generation,
		Namespaces: r.listeners.status(), Destinations: r.destinations.list(), Handovers: r.pending(), Counters: counters,
	}
	for _, a := range r.attachments {
		s.Cgroups = append(s.Cgroups, a.status())
	}
	slices.SortFunc(s.Cgroups, func(a, b CgroupStatus) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(s.Destinations, func(a, b Destination) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Port, b.Port))
	})
	return s, nil
}

func (a *attachment) status() CgroupStatus {
	s := CgroupStatus{Path: a.path, ID: a.id, Kind: a.kind}
	for _, name := range slices.Sorted(maps.Keys(a.links)) {
		l := LinkStatus{Program: name}
		info, err := a.links[name].Info()
		if err != nil {
			l.Error = err.Error()
		} else {
			l.ID, l.ProgramID = uint32(info.ID), uint32(info.Program)
			if cg := info.Cgroup(); cg == nil || cg.CgroupId != a.id {
				l.Error = "detached"
			}
		}
		s.Links = append(s.Links, l)
	}
	return s
}

func (l *listeners) status() []NamespaceStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []NamespaceStatus
	for _, n := range l.spaces {
		s := NamespaceStatus{Cookie: n.cookie, Inode: n.id.inode, Own: n.file == nil, LoopbackUp: n.loopbackUp}
		for _, ln := range n.listeners {
			s.Listeners = append(s.Listeners, ln.Addr().(*net.TCPAddr).AddrPort())
		}
		for _, problem := range n.problems {
			s.Problems = append(s.Problems, problem.Error())
		}
		slices.SortFunc(s.Listeners, netip.AddrPort.Compare)
		slices.Sort(s.Problems)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b NamespaceStatus) int { return cmp.Compare(a.Cookie, b.Cookie) })
	return out
}
