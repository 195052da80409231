package redirect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/weirproxy/weir/internal/testkit"
)

func TestProbe(t *testing.T) {
	dir := testkit.Cgroup(t)
	features := Probe([]string{dir})
	for _, f := range features {
		if f.Err != nil || f.Name == "" || f.Cost == "" {
			t.Errorf("%+v", f)
		}
	}
	if last := features[len(features)-1]; last.Name != "attach below "+dir {
		t.Errorf("the last is %q", last.Name)
	}
	left, err := filepath.Glob(filepath.Join(dir, "weir-doctor-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestProbeNamesAFlaglessProgram(t *testing.T) {
	dir := testkit.Cgroup(t)
	foreign(t, dir, ebpf.AttachCGroupInet4Connect, ebpf.CGroupSockAddr, true, allow)
	for _, f := range Probe([]string{dir}) {
		if !strings.HasPrefix(f.Name, "attach below") {
			continue
		}
		if f.Err == nil || !strings.Contains(f.Err.Error(), "BPF_F_ALLOW_MULTI") {
			t.Errorf("%v", f.Err)
		}
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, "weir-doctor-*")); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestProbeOfACgroupThatIsNotThere(t *testing.T) {
	features := Probe([]string{filepath.Join(testkit.Cgroup(t), "missing")})
	if last := features[len(features)-1]; last.Err == nil {
		t.Errorf("%+v", last)
	}
}

func TestOthers(t *testing.T) {
	parent := testkit.Cgroup(t)
	child := filepath.Join(parent, "child")
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(child) })
	before, err := Others([]string{child})
	if err != nil {
		t.Fatal(err)
	}
	foreign(t, parent, ebpf.AttachCGroupInet4Connect, ebpf.CGroupSockAddr, false, allow)
	after, err := Others([]string{child})
	if err != nil || len(after) != len(before)+1 {
		t.Fatalf("%v, then %v, %v", before, after, err)
	}
	found := false
	for _, f := range after {
		found = found || f.Cgroup == parent && f.ID != 0 && strings.Contains(strings.ToLower(f.Hook), "connect")
	}
	if !found {
		t.Errorf("%+v", after)
	}
}
