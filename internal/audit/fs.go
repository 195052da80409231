package audit

import (
	"errors"
	"os"
	"syscall"
)

// FS is what the spool and the sealer do to the disk. Fault tests put errors in its way; the
// zero Config uses the real one. Reading is not part of it.
type FS interface {
	// Create makes or empties a file for appending, mode 0600.
	Create(name string) (File, error)
	Rename(from, to string) error
	// Truncate cuts a file to size and brings all of it to the disk, also when it
	// has that size already.
	Truncate(name string, size int64) error
	// SyncDir brings the names in a directory to the disk.
	SyncDir(dir string) error
}

// File is a file that grows at its end.
type File interface {
	Write(b []byte) (int, error)
	Sync() error // returns when all that was written is on disk
	Close() error
}

// RealFS is the real file system.
func RealFS() FS { return osFS{} }

type osFS struct{}

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) Truncate(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < size {
		return errors.New("the file is shorter than what was written to it")
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// osFile syncs with fdatasync(2): a file's size is part of it, its times are not.
type osFile struct{ *os.File }

func (f osFile) Sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
