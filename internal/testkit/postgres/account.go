package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the system user that the server runs as. PostgreSQL refuses to run
// as root.
type account struct {
	uid, gid int
	switchTo bool // we are root and change to it
}

func serverAccount() (*account, error) {
	if uid := os.Geteuid(); uid != 0 {
		return &account{uid: uid, gid: os.Getegid()}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("postgres: the server does not run as root and there is no user postgres; install the Debian package postgresql (`apt-get install -y postgresql`): %w", err)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	if err := errors.Join(errU, errG); err != nil {
		return nil, fmt.Errorf("postgres: user postgres: %w", err)
	}
	return &account{uid: uid, gid: gid, switchTo: true}, nil
}

// attributes make a child run as the account and die with the thread that
// started it: SIGQUIT is PostgreSQL's immediate shutdown, which takes the
// backends along.
func (a *account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if a.switchTo {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

func (a *account) own(path string) error {
	if !a.switchTo {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

func (a *account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return a.own(path)
}

// makeSearchable lets the account reach dir. Directories below the temporary one
// are test's own and get o+x; others are left alone.
func (a *account) makeSearchable(dir string) error {
	if !a.switchTo {
		return nil
	}
	temp := filepath.Clean(os.TempDir())
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return fmt.Errorf("postgres: Config.Dir: %w", err)
		}
		if !a.canSearch(info) {
			if d != dir && !strings.HasPrefix(d, temp+"/") {
				return fmt.Errorf("postgres: user postgres cannot enter %s, which Config.Dir lies in; give a directory below %s", d, temp)
			}
			if err := os.Chmod(d, info.Mode().Perm()|0o001); err != nil {
				return err
			}
		}
		if d == "/" {
			return nil
		}
	}
}

func (a *account) canSearch(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case ok && int(st.Uid) == a.uid:
		return info.Mode()&0o100 != 0
	case ok && int(st.Gid) == a.gid:
		return info.Mode()&0o010 != 0
	}
	return info.Mode()&0o001 != 0
}
