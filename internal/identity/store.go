package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// store keeps bindings on disk, one file each (mode 0600), so that an agent that
// restarts still knows who is who. It holds verified claims, never a token.
type store struct{ dir string }

// storedVersion is the schema of stored; files of another are dropped.
const storedVersion = 1

type stored struct {
	Version      int            `json:"version"`
	ID           string         `json:"id"`
	Kind         BindingKind    `json:"kind"`
	BootID       string         `json:"boot_id"`
	Issuer       string         `json:"issuer"`
	TokenID      string         `json:"token_id"`
	Claims       map[string]any `json:"claims"`
	Since        time.Time      `json:"since"`
	Verified     time.Time      `json:"verified"`
	Parent       string         `json:"parent,omitempty"`
	Cgroup       string         `json:"cgroup,omitempty"`
	CgroupID     uint64         `json:"cgroup_id,omitempty"`
	UID          uint32         `json:"uid"`
	LoginUID     uint32         `json:"login_uid"`
	AuditSession uint32         `json:"audit_session"`
	Ended        string         `json:"ended,omitempty"`
	EndedAt      time.Time      `json:"ended_at,omitzero"`
	Expired      bool           `json:"expired,omitempty"` // the event has been sent
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: cannot make the folder for bindings: %w", err)
	}
	return &store{dir}, nil
}

func (s *store) file(id string) string { return filepath.Join(s.dir, id+".json") }

// save writes a binding; it is on disk when save returns.
func (s *store) save(b *Binding, bootID string) error {
	data, err := json.Marshal(stored{
		Version: storedVersion, ID: b.ID, Kind: b.Kind, BootID: bootID,
		Issuer: b.Principal.Issuer, TokenID: b.Principal.TokenID, Claims: b.Principal.Claims,
		Since: b.Since, Verified: b.Verified, Parent: b.Parent, Cgroup: b.Cgroup, CgroupID: b.CgroupID,
		UID: b.UID, LoginUID: b.LoginUID, AuditSession: b.AuditSession,
		Ended: b.Ended, EndedAt: b.EndedAt, Expired: b.expired,
	})
	if err != nil {
		return err
	}
	return writeFile(s.file(b.ID), data)
}

func (s *store) remove(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(s.dir)
}

// load reads everything. Files that cannot be read back are returned by name:
// nobody is bound by them.
func (s *store) load() (list []stored, bad []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		id, isBinding := strings.CutSuffix(e.Name(), ".json")
		if !isBinding {
			if strings.HasPrefix(e.Name(), ".tmp-") { // a write cut off by a crash
				os.Remove(filepath.Join(s.dir, e.Name()))
			}
			continue
		}
		data, err := os.ReadFile(s.file(id))
		var b stored
		if err == nil {
			err = json.Unmarshal(data, &b)
		}
		if _, badID := ulid.ParseStrict(id); err != nil || badID != nil || b.ID != id || b.Version != storedVersion {
			bad = append(bad, e.Name())
			continue
		}
		list = append(list, b)
	}
	return list, bad, nil
}

// bootID changes with every start of the machine (random(4)).
func readBootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
