package record

import (
	"os"
	"syscall"
)

// Files is what a recorder does to the disk. Fault tests put errors in its way.
type Files interface {
	// MakeDir makes a directory and those above it, mode 0700.
	MakeDir(dir string) error
	// Create makes a file that is not there yet, mode 0600.
	Create(name string) (File, error)
	Remove(name string) error
	// SyncDir brings the names in a directory to the disk.
	SyncDir(dir string) error
	// Free is how many bytes can still be written below dir.
	Free(dir string) (int64, error)
}

// File is a file of a recording.
type File interface {
	Write(b []byte) (int, error)
	Sync() error
	Close() error
}

type osFiles struct{}

func (osFiles) MakeDir(dir string) error { return os.MkdirAll(dir, 0o700) }

func (osFiles) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFiles) Remove(name string) error { return os.Remove(name) }

func (osFiles) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (osFiles) Free(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}
