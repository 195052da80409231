package accept

import (
	"strings"

	"github.com/weirproxy/weir/internal/flow"
)

// podOf reads pod UID and container id from a cgroup path, as kubelet makes it with
// either driver and with every common runtime; nil when it is no pod's:
//
//	/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c_....slice/cri-containerd-9f86....scope
//	/kubepods/burstable/pod1b2c-.../9f86...
//	/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1b2c_....slice/crio-9f86....scope   (kind)
//
// Only the outermost pod counts: what lies below it may have been made by the pod.
// Below user.slice the tree belongs to people, who can give any name.
func podOf(path string) *flow.Pod {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if parts[0] == "user.slice" || parts[0] == "machine.slice" {
		return nil
	}
	inKubepods := false
	for i, part := range parts {
		name := strings.TrimSuffix(part, ".slice")
		if name == "kubepods" || strings.HasSuffix(name, "-kubepods") {
			inKubepods = true
		}
		uid, ok := podUID(name)
		if !ok || !inKubepods {
			continue
		}
		pod := &flow.Pod{UID: uid}
		if i+1 < len(parts) {
			pod.Container = containerID(parts[i+1])
		}
		return pod
	}
	return nil
}

// podUID takes the UID off a name like "kubepods-burstable-pod<uid>". systemd writes
// the dashes of a UID as underscores. Static pods have 32 hex digits without dashes.
func podUID(name string) (string, bool) {
	i := strings.LastIndex(name, "pod")
	if i < 0 || (i > 0 && name[i-1] != '-') {
		return "", false
	}
	uid := strings.ReplaceAll(name[i+len("pod"):], "_", "-")
	digits := strings.ReplaceAll(uid, "-", "")
	if len(digits) != 32 || !isHex(digits) || (len(uid) != 32 && len(uid) != 36) {
		return "", false
	}
	return uid, true
}

// containerID takes the 64 hex digits off "cri-containerd-<id>.scope" and the like.
func containerID(name string) string {
	name = strings.TrimSuffix(name, ".scope")
	name = name[strings.LastIndexAny(name, "-:")+1:]
	if len(name) != 64 || !isHex(name) {
		return ""
	}
	return name
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
