package ca

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Store is a trust store into which a certificate is put as a file.
type Store struct {
	Dir    string   // where the file goes
	Update []string // what makes the system take it; nil: nothing to run
	Fresh  []string // arguments more for a removal, which leaves dead links otherwise
	Bundle string   // the file that programs read then; "" when unknown
}

// Debian is the system's trust store on Debian and its descendants
// (update-ca-certificates(8)).
func Debian() Store {
	return Store{Dir: "/usr/local/share/ca-certificates", Update: []string{"update-ca-certificates"}, Fresh: []string{"--fresh"}, Bundle: "/etc/ssl/certs/ca-certificates.crt"}
}

// Folder is a store that is only a folder: nothing is run.
func Folder(dir string) Store { return Store{Dir: dir} }

// ErrNoStore means that this system's way of trusting a certificate is unknown.
var ErrNoStore = errors.New("this system has no update-ca-certificates: run `weir trust bundle` and add its output to the trust store by the system's own means (Fedora, RHEL: /etc/pki/ca-trust/source/anchors and update-ca-trust; Arch: trust anchor), or name a folder with --dir")

// System is the trust store of this machine, ErrNoStore when it is none that is
// known.
func System() (Store, error) {
	s := Debian()
	if info, err := os.Stat(s.Dir); err != nil || !info.IsDir() {
		return Store{}, ErrNoStore
	}
	if _, err := exec.LookPath(s.Update[0]); err != nil {
		return Store{}, ErrNoStore
	}
	return s, nil
}

// File is the name that a node's certificate has in the store.
func (s Store) File(node string) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}, node)
	return filepath.Join(s.Dir, "weir-"+safe+".crt")
}

// Install puts a node's CA certificate into the store and returns its file.
// Installing the same again changes nothing.
func (s Store) Install(ctx context.Context, node string, bundle []byte) (string, error) {
	block, rest := pem.Decode(bundle)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return "", errors.New("not one PEM certificate: give what `weir trust bundle` prints")
	}
	file := s.File(node)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, bundle) && s.Trusts(bundle) {
		return file, nil
	}
	tmp, err := os.CreateTemp(s.Dir, ".weir-*")
	if err != nil {
		return "", fmt.Errorf("the trust store cannot be written (are you root?): %w", err)
	}
	defer os.Remove(tmp.Name())
	err = tmp.Chmod(0o644)
	if err == nil {
		_, err = tmp.Write(bundle)
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return "", fmt.Errorf("the trust store cannot be written: %w", err)
	}
	return file, s.update(ctx, s.Update)
}

// Uninstall takes a node's certificate out; one that is not there is no error.
func (s Store) Uninstall(ctx context.Context, node string) error {
	if err := os.Remove(s.File(node)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("the trust store cannot be changed (are you root?): %w", err)
	}
	return s.update(ctx, slices.Concat(s.Update, s.Fresh))
}

// Trusts reports whether programs that read the store find the certificate; for
// a store without a known bundle, whether nothing more is to be done.
func (s Store) Trusts(bundle []byte) bool {
	if s.Bundle == "" {
		return len(s.Update) == 0
	}
	block, _ := pem.Decode(bundle)
	all, err := os.ReadFile(s.Bundle)
	if err != nil || block == nil {
		return false
	}
	for len(all) > 0 {
		var b *pem.Block
		if b, all = pem.Decode(all); b == nil {
			return false
		}
		if bytes.Equal(b.Bytes, block.Bytes) {
			return true
		}
	}
	return false
}

func (s Store) update(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return nil
	}
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s failed: %w; it said: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
