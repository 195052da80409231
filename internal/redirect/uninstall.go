package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/bpf"
)

// Uninstall takes out everything that agents left below a bpffs folder: links,
// maps, pins, the cgroups that they made for themselves, the folder, and the mount
// when it was made for this folder alone. From then on nothing is redirected. It
// works without an agent, and fails with ErrInUse while one runs. A folder that is
// not there is no error.
func Uninstall(bpffs string) error {
	bpffs = filepath.Clean(bpffs)
	if _, err := os.Stat(bpffs); errors.Is(err, fs.ErrNotExist) || err == nil && !onBPFFS(bpffs) {
		return nil
	}
	lock, err := lockFolder(bpffs)
	if err != nil {
		return err
	}
	defer lock.Close()
	h, err := findHierarchy()
	if err != nil {
		return err
	}
	// Links first: with the maps gone they would refuse what they cannot look up.
	attachments, err := pinnedAttachments(h, bpffs)
	errs := []error{err}
	for _, a := range attachments {
		errs = append(errs, a.remove())
	}
	errs = append(errs, os.RemoveAll(filepath.Join(bpffs, linksDir)), removeAgentCgroups(h, bpffs),
		os.RemoveAll(filepath.Join(bpffs, mapsDir)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("uninstall %s: %w", bpffs, err)
	}
	return removeFolder(bpffs)
}

func removeAgentCgroups(h hierarchy, bpffs string) error {
	agents, err := ebpf.LoadPinnedMap(filepath.Join(bpffs, mapsDir, bpf.RedirectMapAgentsV1), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer agents.Close()
	var errs []error
	var id uint64
	var pid uint32
	for it := agents.Iterate(); it.Next(&id, &pid); {
		path, err := h.byID(id)
		if err != nil {
			continue // gone already
		}
		if own, err := h.own(); err == nil && own.id == id {
			continue // ours: it goes when this process has ended and the next agent starts
		}
		errs = append(errs, removeAgentCgroup(path))
	}
	return errors.Join(errs...)
}

// removeFolder takes the folder out, and a mount on it.
func removeFolder(dir string) error {
	err := os.Remove(dir)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		return err // somebody else keeps pins here
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return os.Remove(dir)
}
