package redirect

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse means that another agent holds the folder.
var ErrInUse = errors.New("another weir agent is running on this folder: stop it first, or give this one its own bpffs folder and port")

// openBPFFS makes sure that dir exists on a bpf file system, mounting one where
// there is none, and locks it. The lock ends with the process, or with Close.
func openBPFFS(dir string) (*os.File, error) {
	dir = filepath.Clean(dir)
	if !onBPFFS(existing(dir)) {
		at := dir
		// The usual place is shared by every eBPF user of the machine.
		if usual := "/sys/fs/bpf"; strings.HasPrefix(dir+"/", usual+"/") {
			at = usual
		} else if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if err := unix.Mount("bpf", at, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return nil, fmt.Errorf("mount a bpf file system at %s: %w", at, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	return lockFolder(dir)
}

func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// existing is the nearest folder at or above dir that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func onBPFFS(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}
