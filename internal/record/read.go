package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// maxDecoded bounds what one chunk may become when it is unpacked, bytes: a chunk is
// maxChunk and an entry, each of whose bytes JSON writes as six at most.
const maxDecoded = 64 << 20

// maxPacked bounds what one chunk may be in the file, bytes.
const maxPacked = maxDecoded

// Session is a recording as the audit log tells of it.
type Session struct {
	ID        string              `json:"id"`
	Format    string              `json:"format"`
	File      string              `json:"file"`
	Sealed    bool                `json:"sealed"`
	State     string              `json:"state"` // recording | closed | removed
	Started   time.Time           `json:"started"`
	Ended     *time.Time          `json:"ended,omitempty"`
	Reason    string              `json:"reason,omitempty"` // of its end
	Flow      string              `json:"flow"`
	Principal *auditlog.Principal `json:"principal,omitempty"`
	Backend   string              `json:"backend"`
	Protocol  string              `json:"protocol"`
	Database  string              `json:"database,omitempty"`
	Login     string              `json:"login,omitempty"`
	Chunks    int                 `json:"chunks"`
	Bytes     int64               `json:"bytes"`
	Events    int64               `json:"events"`

	chunks []auditlog.RecordingInfo
	whole  string // hash of the file once closed
}

// User is who was recorded.
func (s *Session) User() string {
	if s.Principal == nil {
		return ""
	}
	return s.Principal.User
}

// Index collects recordings from the events of a log, in their order.
type Index struct {
	list []*Session
	byID map[string]*Session
}

// Take takes an event of the log; those of other kinds are passed over.
func (x *Index) Take(ev *auditlog.Event) {
	if ev.Kind != auditlog.Recording || ev.Recording == nil {
		return
	}
	info := ev.Recording
	s := x.byID[info.ID]
	if s == nil {
		if x.byID == nil {
			x.byID = make(map[string]*Session)
		}
		s = &Session{ID: info.ID, Format: info.Format, File: info.File, Sealed: info.Sealed, State: "recording", Started: ev.Time, Flow: ev.Flow,
			Principal: ev.Principal, Backend: ev.Backend, Protocol: ev.Protocol, Database: ev.Database, Login: ev.Login}
		x.byID[info.ID] = s
		x.list = append(x.list, s)
	}
	switch info.State {
	case auditlog.RecordingChunk:
		s.chunks = append(s.chunks, *info)
		s.Chunks, s.Bytes, s.Events = s.Chunks+1, s.Bytes+info.Bytes, s.Events+info.Events
	case auditlog.RecordingClosed:
		at := ev.Time
		s.State, s.Reason, s.Ended, s.Bytes, s.whole = auditlog.RecordingClosed, ev.Reason, &at, info.Bytes, info.SHA256
	case auditlog.RecordingRemoved:
		s.State, s.Reason = auditlog.RecordingRemoved, ev.Reason
	}
}

// Sessions are the recordings in the order in which they began.
func (x *Index) Sessions() []*Session { return x.list }

// Find is the recording with an id, or of a flow.
func (x *Index) Find(id string) (*Session, bool) {
	if s, ok := x.byID[id]; ok {
		return s, true
	}
	i := slices.IndexFunc(x.list, func(s *Session) bool { return s.Flow == id })
	if i < 0 {
		return nil, false
	}
	return x.list[i], true
}

// WrongError says that a recording is not what the log says of it.
type WrongError struct {
	Chunk int64 // 0: the file as a whole
	Why   string
}

func (e *WrongError) Error() string {
	if e.Chunk == 0 {
		return "the recording is not what the audit log says of it: " + e.Why
	}
	return fmt.Sprintf("chunk %d of the recording is not what the audit log says of it: %s", e.Chunk, e.Why)
}

// SealedError says that a recording cannot be opened with the identities at hand.
type SealedError struct{}

func (*SealedError) Error() string {
	return "the recording is sealed to the auditors' keys; name the age identity with --identity FILE"
}

// Verify checks a recording below dir against the log: every chunk and, when it is
// closed, the file as a whole. It needs no key.
func (s *Session) Verify(dir string) error {
	f, err := s.open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range s.chunks {
		if _, err := s.packed(f, i); err != nil {
			return err
		}
	}
	if s.whole == "" {
		return nil
	}
	sum := newSum()
	n, err := io.Copy(sum, io.NewSectionReader(f, 0, s.Bytes))
	if err != nil {
		return err
	}
	if n != s.Bytes || sum.text() != s.whole {
		return &WrongError{Why: "its hash is another one"}
	}
	return nil
}

func (s *Session) open(dir string) (*os.File, error) {
	if !filepath.IsLocal(s.File) {
		return nil, &WrongError{Why: "its file's name leads out of the recordings' directory"}
	}
	f, err := os.Open(filepath.Join(dir, s.File))
	if errors.Is(err, os.ErrNotExist) {
		if s.State == auditlog.RecordingRemoved {
			return nil, fmt.Errorf("the recording is not there any more: %s", s.Reason)
		}
		return nil, &WrongError{Why: "its file is not there"}
	}
	return f, err
}

// packed is a chunk as it is in the file, which is what the log says.
func (s *Session) packed(f *os.File, i int) ([]byte, error) {
	c := &s.chunks[i]
	if c.Chunk != int64(i+1) {
		return nil, &WrongError{Chunk: int64(i + 1), Why: "the log has none of that number"}
	}
	if c.Bytes <= 0 || c.Bytes > maxPacked {
		return nil, &WrongError{Chunk: c.Chunk, Why: "it cannot have that length"}
	}
	b := make([]byte, c.Bytes)
	if n, err := f.ReadAt(b, c.Offset); err != nil {
		if err != io.EOF {
			return nil, err
		}
		return nil, &WrongError{Chunk: c.Chunk, Why: fmt.Sprintf("%d of its %d bytes are missing", len(b)-n, len(b))}
	}
	sum := newSum()
	sum.Write(b)
	if sum.text() != c.SHA256 {
		return nil, &WrongError{Chunk: c.Chunk, Why: "its hash is another one"}
	}
	return b, nil
}

// Read passes the content of a recording below dir to take, a chunk at a time, each
// checked against the log first. The first error of take ends it.
func (s *Session) Read(dir string, identities []age.Identity, take func(chunk []byte) error) error {
	if s.Sealed && len(identities) == 0 {
		return &SealedError{}
	}
	f, err := s.open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded))
	if err != nil {
		return err
	}
	defer decoder.Close()
	for i := range s.chunks {
		b, err := s.packed(f, i)
		if err != nil {
			return err
		}
		if s.Sealed {
			if b, err = unseal(b, identities); err != nil {
				return err
			}
		}
		if b, err = decoder.DecodeAll(b, nil); err != nil {
			return fmt.Errorf("unpack chunk %d: %w", i+1, err)
		}
		if err := take(b); err != nil {
			return err
		}
	}
	return nil
}

func unseal(b []byte, identities []age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(b), identities...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, errors.New("the recording is sealed to other keys than those of the identity file")
	}
	if err != nil {
		return nil, fmt.Errorf("open the seal: %w", err)
	}
	return io.ReadAll(r)
}
