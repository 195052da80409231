package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/weirproxy/weir/bpf"
)

// Feature is something that the kernel half needs and what trying it gave.
type Feature struct {
	Name   string
	Err    error  // nil: it is there
	Cost   string // what is lost without it
	Needed bool   // nothing works without it
}

// hooks are the cgroup hooks that our programs attach to.
var hooks = []ebpf.AttachType{
	ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
	ebpf.AttachCgroupInet4GetPeername, ebpf.AttachCgroupInet6GetPeername, ebpf.AttachCGroupInet4PostBind, ebpf.AttachCGroupInet6PostBind,
	ebpf.AttachCGroupSockOps,
}

// Probe tries by loading what Weir needs of the kernel, never by its version, and
// attaches Weir's programs to empty cgroups of its own below those that an agent
// with this configuration would attach to. It leaves nothing behind and does not
// disturb a running agent.
func Probe(cgroups []string) []Feature {
	out := []Feature{
		need("kernel types (BTF)", haveBTF(), "who connects cannot be read in the kernel, so nothing can be attributed"),
		need("programs at connect, sendmsg, getpeername", features.HaveProgramType(ebpf.CGroupSockAddr), "no connection can be redirected"),
		need("programs at bind", features.HaveProgramType(ebpf.CGroupSock), "the proxy port cannot be kept for the agent"),
		need("socket operations programs", features.HaveProgramType(ebpf.SockOps), "the destination of a redirected connection is lost"),
		need("socket storage", features.HaveMapType(ebpf.SkStorage), "the destination of a redirected connection is lost"),
		need("longest prefix match maps", features.HaveMapType(ebpf.LPMTrie), "protected prefixes cannot be looked up"),
		need("network namespace cookies at connect", features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetNetnsCookie), "pods with the same addresses could be taken for each other"),
		need("network namespace cookies in socket operations", features.HaveProgramHelper(ebpf.SockOps, asm.FnGetNetnsCookie), "pods with the same addresses could be taken for each other"),
		need("refusals with a reason", features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval), "a refused connect cannot say why"),
		need("the caller's cgroup", features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetCurrentCgroupId), "no `weir exec`, and no pods"),
	}
	objects, err := probeObjects()
	out = append(out, need("weir's own programs", err, "an agent does not start"))
	if err != nil {
		return out
	}
	defer objects.Close()
	return append(out, probeAttach(objects, cgroups)...)
}

func need(name string, err error, cost string) Feature {
	return Feature{Name: name, Err: err, Cost: cost, Needed: true}
}

func haveBTF() error {
	_, err := btf.LoadKernelSpec()
	return err
}

// probeMaps is the size of the hand-over table in a probe, entries.
const probeMaps = 16

// probeObjects loads the programs with maps of their own.
func probeObjects() (*objects, error) {
	spec, err := bpf.LoadRedirect()
	if err != nil {
		return nil, err
	}
	spec.Maps[bpf.RedirectMapHandoversV1].MaxEntries = probeMaps
	o := &objects{programs: make(map[string]program)}
	if err := spec.LoadAndAssign(&o.RedirectObjects, nil); err != nil {
		return nil, explainLoad(err)
	}
	if err := o.index(spec); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// probeAttach attaches below each cgroup that an agent would attach to.
func probeAttach(o *objects, configured []string) []Feature {
	const cost = "connections from there are not captured"
	h, err := findHierarchy()
	if err != nil {
		return []Feature{need("cgroup v2", err, "no connection can be redirected")}
	}
	targets, err := h.targets(configured)
	if err != nil {
		return []Feature{need("cgroups to attach to", err, cost)}
	}
	var out []Feature
	for _, t := range targets {
		out = append(out, need("attach below "+t.path, attachBelow(o, h, t), cost))
	}
	return out
}

func attachBelow(o *objects, h hierarchy, target cgroup) (err error) {
	dir, err := os.MkdirTemp(target.path, "weir-doctor-")
	if err != nil {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	c, err := h.open(dir)
	if err != nil {
		return err
	}
	for _, p := range o.programs {
		l, err := o.attachOne(c, -1, p, false)
		if err != nil {
			return err
		}
		// Detached before the cgroup goes, so that nothing runs on for a moment.
		if err := errors.Join(l.Detach(), l.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Foreign is a program of somebody else on a hook that Weir uses.
type Foreign struct {
	Cgroup  string
	Hook    string
	Program string // its name; the kernel cuts it to 15 bytes
	ID      uint32
}

// Others lists programs that are not Weir's and run for the cgroups that an agent
// with this configuration would attach to: there and above.
func Others(cgroups []string) ([]Foreign, error) {
	h, err := findHierarchy()
	if err != nil {
		return nil, err
	}
	targets, err := h.targets(cgroups)
	if err != nil {
		return nil, err
	}
	found := map[Foreign]bool{}
	for _, t := range targets {
		for dir := t.path; ; dir = filepath.Dir(dir) {
			if err := othersAt(dir, found); err != nil {
				return nil, err
			}
			if dir == h.root || len(dir) <= len(h.root) {
				break
			}
		}
	}
	out := make([]Foreign, 0, len(found))
	for f := range found {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Foreign) int {
		return cmp.Or(strings.Compare(a.Cgroup, b.Cgroup), strings.Compare(a.Hook, b.Hook), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func othersAt(dir string, found map[Foreign]bool) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, hook := range hooks {
		res, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: hook})
		if err != nil {
			return fmt.Errorf("programs at %s of %s: %w", hook, dir, err)
		}
		for _, p := range res.Programs {
			name := programName(p.ID)
			if !strings.HasPrefix(name, "weir_") {
				found[Foreign{Cgroup: dir, Hook: hook.String(), Program: name, ID: uint32(p.ID)}] = true
			}
		}
	}
	return nil
}

// programName is "" for a program that has just gone.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}
