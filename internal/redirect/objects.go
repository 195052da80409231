package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weirproxy/weir/bpf"
)

// Folders below the bpffs folder. Map names carry the schema version themselves;
// a link's pin says which cgroup and program it belongs to.
const (
	mapsDir  = "maps"
	linksDir = "links"
)

// objects are the loaded programs and maps of one agent.
type objects struct {
	bpf.RedirectObjects
	programs map[string]program
	fresh    []string // names of maps that are not pinned yet
}

// program is a loaded program and where it goes.
type program struct {
	*ebpf.Program
	attach ebpf.AttachType
	id     ebpf.ProgramID
}

// loadObjects loads the programs on top of the maps that an earlier agent pinned
// below dir; maps that are missing are made, and pinned by pinMaps at the end.
func loadObjects(dir string, maxHandovers uint32) (_ *objects, err error) {
	spec, err := bpf.LoadRedirect()
	if err != nil {
		return nil, err
	}
	if maxHandovers != 0 {
		spec.Maps[bpf.RedirectMapHandoversV1].MaxEntries = maxHandovers
	}
	o := &objects{programs: make(map[string]program)}
	pinned := make(map[string]*ebpf.Map)
	defer func() {
		for _, m := range pinned {
			m.Close() // the collection has clones of its own
		}
	}()
	for name := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, mapsDir, name), nil)
		switch {
		case err == nil:
			pinned[name] = m
		case errors.Is(err, fs.ErrNotExist):
			o.fresh = append(o.fresh, name)
		default:
			return nil, fmt.Errorf("open the pinned map %s: %w", name, err)
		}
	}
	err = spec.LoadAndAssign(&o.RedirectObjects, &ebpf.CollectionOptions{MapReplacements: pinned})
	if err != nil {
		return nil, explainLoad(err)
	}
	if err := o.index(spec); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

func explainLoad(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return fmt.Errorf("the kernel refused a program (Weir needs Linux 6.1 or newer): %w", err)
	case errors.Is(err, ebpf.ErrMapIncompatible):
		return fmt.Errorf("a pinned map has another layout; `weir agent --uninstall` takes the old ones out: %w", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("loading eBPF programs needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN: %w", err)
	}
	return fmt.Errorf("load the eBPF programs: %w", err)
}

func (o *objects) index(spec *ebpf.CollectionSpec) error {
	for name, p := range map[string]*ebpf.Program{
		bpf.RedirectProgWeirConnect4:     o.WeirConnect4,
		bpf.RedirectProgWeirConnect6:     o.WeirConnect6,
		bpf.RedirectProgWeirSendmsg4:     o.WeirSendmsg4,
		bpf.RedirectProgWeirSendmsg6:     o.WeirSendmsg6,
		bpf.RedirectProgWeirGetpeername4: o.WeirGetpeername4,
		bpf.RedirectProgWeirGetpeername6: o.WeirGetpeername6,
		bpf.RedirectProgWeirPostBind4:    o.WeirPostBind4,
		bpf.RedirectProgWeirPostBind6:    o.WeirPostBind6,
		bpf.RedirectProgWeirSockops:      o.WeirSockops,
	} {
		info, err := p.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		o.programs[name] = program{p, spec.Programs[name].AttachType, id}
	}
	if len(o.programs) != len(spec.Programs) {
		return fmt.Errorf("%d programs in the object, %d known to the loader", len(spec.Programs), len(o.programs))
	}
	return nil
}

func (o *objects) mapByName(name string) *ebpf.Map {
	return map[string]*ebpf.Map{
		bpf.RedirectMapAgentsV1:       o.AgentsV1,
		bpf.RedirectMapConfigV1:       o.ConfigV1,
		bpf.RedirectMapCountersV1:     o.CountersV1,
		bpf.RedirectMapDestinationsV1: o.DestinationsV1,
		bpf.RedirectMapFlowsV1:        o.FlowsV1,
		bpf.RedirectMapHandoversV1:    o.HandoversV1,
		bpf.RedirectMapRecordsV1:      o.RecordsV1,
		bpf.RedirectMapStampsV1:       o.StampsV1,
	}[name]
}

// pinMaps pins what loadObjects made. undo takes those pins out again.
func (o *objects) pinMaps(dir string) (undo func(), err error) {
	var done []*ebpf.Map
	undo = func() {
		for _, m := range done {
			_ = m.Unpin()
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, mapsDir), 0o700); err != nil {
		return undo, err
	}
	for _, name := range o.fresh {
		m := o.mapByName(name)
		if err := m.Pin(filepath.Join(dir, mapsDir, name)); err != nil {
			return undo, fmt.Errorf("pin the map %s: %w", name, err)
		}
		done = append(done, m)
	}
	return undo, nil
}
