// Package policystore keeps the policy that is in force: it reads the files,
// compiles them with package policy, publishes the result in one step and
// watches for changes. A set that does not compile never replaces one that works.
// It decides nothing itself and starts no goroutine: Watch runs in its caller's.
package policystore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/strictyaml"
)

// Config is what a Store is made of.
type Config struct {
	Paths     []string                 // policy files; together they are one set
	Protocols map[string]flow.Protocol // of the configured backends; nil: not known
	// OnLoad is told of every change and of every attempt that failed: before
	// is what was in force, after what is in force now. With an error after is
	// before. Calls do not overlap. nil: nobody is told.
	OnLoad func(before, after *policy.Set, err error)
}

// Store holds the set in force. It is safe for concurrent use.
type Store struct {
	Config
	current atomic.Pointer[policy.Set]

	mu   sync.Mutex // one load at a time
	last string     // what the last attempt that failed looked like, "" after a good one
}

// New makes a store whose set denies everything, until Load.
func New(c Config) *Store {
	s := &Store{Config: c}
	s.current.Store(new(policy.Set))
	return s
}

// Current is the set in force, never nil.
func (s *Store) Current() *policy.Set { return s.current.Load() }

// Load reads and compiles the files and puts the set in force. On an error the
// set before stays. An unchanged set is left alone and nobody is told.
func (s *Store) Load() (changed bool, err error) { return s.load(false) }

// Reload is Load under the name of what SIGHUP asks for.
func (s *Store) Reload() (changed bool, err error) { return s.load(false) }

// load with once does not report the same failure of the same files again.
func (s *Store) load(once bool) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current.Load()
	files, err := Read(s.Paths)
	if err == nil && policy.Revision(files) == before.Revision() {
		s.last = ""
		return false, nil
	}
	var after *policy.Set
	if err == nil {
		after, err = policy.Compile(files, policy.Options{Protocols: s.Protocols})
	}
	if err != nil {
		seen := err.Error()
		if len(files) > 0 {
			seen += policy.Revision(files)
		}
		if !once || s.last != seen {
			s.tell(before, before, err)
		}
		s.last = seen
		return false, err
	}
	s.last = ""
	s.current.Store(after)
	// From here on new decisions use the new set; running ones finish with the old.
	s.tell(before, after, nil)
	return true, nil
}

func (s *Store) tell(before, after *policy.Set, err error) {
	if s.OnLoad != nil {
		s.OnLoad(before, after, err)
	}
}

// Read reads policy files. The error names every one that cannot be read.
func Read(paths []string) ([]policy.File, error) {
	files := make([]policy.File, 0, len(paths))
	var errs []error
	for _, p := range paths {
		data, err := readBounded(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("policy file %s cannot be read: %w", p, err))
			continue
		}
		files = append(files, policy.File{Name: p, Data: data})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return files, nil
}

// readBounded reads one byte more than a file may have at most, so that the
// parser says that it is too large.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
}
