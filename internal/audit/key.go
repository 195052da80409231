package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// keyFile and its public half (auditlog.PublicKeyFile) are the log's key, in the
// text form of keys of C2SP signed notes.
const keyFile = "log.key"

const keyPrefix = "PRIVATE+KEY+"

// signer signs checkpoints. It is safe for concurrent use.
type signer struct {
	public  auditlog.PublicKey
	private ed25519.PrivateKey
	found   bool // the key was there already
}

func (s *signer) sign(c auditlog.Checkpoint) []byte {
	c.Origin = s.public.Name
	text := c.Text()
	return append(text, auditlog.FormatSignature(s.public, ed25519.Sign(s.private, text))...)
}

// loadSigner reads the key in STATE_DIR/keys, or makes one when there is none yet
// and fresh says that there is no log either.
func loadSigner(stateDir, node string, fresh bool, log *slog.Logger) (*signer, error) {
	dir := filepath.Join(stateDir, "keys")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of keys: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	text, err := os.ReadFile(path)
	var s *signer
	switch {
	case errors.Is(err, os.ErrNotExist) && !fresh:
		return nil, fmt.Errorf("there is an audit log, but %s with its key is missing; restore it from a backup, or move %s away to begin a new log",
			path, auditlog.SpoolDir(stateDir))
	case errors.Is(err, os.ErrNotExist):
		s, err = createSigner(path, node)
	case err == nil:
		s, err = parseSigner(string(text))
		if err == nil {
			s.found = true
		}
		warnMode(path, log)
	}
	if err != nil {
		return nil, fmt.Errorf("the audit log's key %s: %w", path, err)
	}
	return s, publishKey(stateDir, s.public, log)
}

// publishKey makes log.pub the public half of the key.
func publishKey(stateDir string, k auditlog.PublicKey, log *slog.Logger) error {
	path := auditlog.PublicKeyFile(stateDir)
	want := k.String() + "\n"
	have, err := os.ReadFile(path)
	if err == nil && string(have) == want {
		return nil
	}
	if err == nil {
		log.Warn("the audit log's public key did not belong to its key and is replaced", "file", path)
	}
	if err := writeFile(path, []byte(want), 0o644); err != nil {
		return fmt.Errorf("write the audit log's public key: %w", err)
	}
	return nil
}

func warnMode(path string, log *slog.Logger) {
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
		log.Warn("the audit log's key can be read by others than its owner; chmod 600 it", "file", path)
	}
}

func createSigner(path, node string) (*signer, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	s := &signer{public: auditlog.PublicKey{Name: originOf(node), Key: public}, private: private}
	raw := append([]byte{1}, private.Seed()...) // 1: Ed25519, see signed-note.md
	text := fmt.Sprintf("%s%s+%08x+%s\n", keyPrefix, s.public.Name, s.public.ID(), base64.StdEncoding.EncodeToString(raw))
	return s, writeFile(path, []byte(text), 0o600)
}

// originOf names a node's log. Characters that a note's key name has no room for
// become "_".
func originOf(node string) string {
	name := strings.Map(func(r rune) rune {
		if r <= ' ' || r == '+' || r > '~' {
			return '_'
		}
		return r
	}, node)
	return name + "/weir-spool"
}

func parseSigner(text string) (*signer, error) {
	bad := errors.New("this is no key of a log")
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), keyPrefix)
	if !ok {
		return nil, bad
	}
	parts := strings.SplitN(rest, "+", 3)
	if len(parts) != 3 || !auditlog.ValidOrigin(parts[0]) {
		return nil, bad
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.SeedSize || raw[0] != 1 {
		return nil, bad
	}
	private := ed25519.NewKeyFromSeed(raw[1:])
	s := &signer{public: auditlog.PublicKey{Name: parts[0], Key: private.Public().(ed25519.PublicKey)}, private: private}
	if fmt.Sprintf("%08x", s.public.ID()) != parts[1] {
		return nil, errors.New("the key does not have the hash that it states")
	}
	return s, nil
}

// writeFile replaces a file as a whole and brings it to the disk.
func writeFile(path string, b []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return osFS{}.SyncDir(filepath.Dir(path))
}
