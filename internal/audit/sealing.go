package audit

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// What the sealer needs of the spool, which owns the directory and the key.

// Sync brings everything that is written to the disk and returns where it ends:
// what stands before that will not be taken back, nor lost with the power.
func (s *Spool) Sync() (auditlog.Position, error) {
	s.mu.Lock()
	if err := s.refusal(); err != nil {
		s.mu.Unlock()
		return auditlog.Position{}, err
	}
	at, pos := s.placeLocked(), s.pos
	s.mu.Unlock()
	return pos, s.sync(at)
}

// SignTreeHead makes the signed note of a head of the sealed log, under the name
// that the log's key has there: it does not pass for a checkpoint of the spool.
func (s *Spool) SignTreeHead(size uint64, root auditlog.Hash) []byte {
	key := s.signer.public.ForTiles()
	text := auditlog.TreeHead{Origin: key.Name, Size: size, Root: root}.Text()
	return append(text, auditlog.FormatSignature(key, ed25519.Sign(s.signer.private, text))...)
}

// Remove removes segments, the oldest first, that end before sealed, and that end
// before keep and what subscribers still read, or were over before old. The newest ones stay while together they
// are no longer than one full segment: `weir audit tail` reads them. It returns
// how many it removed.
//
// The caller guarantees that the sealed log holds, and its published checkpoint
// covers, every event before sealed.
func (s *Spool) Remove(sealed, keep auditlog.Position, old time.Time) (int, error) {
	list, err := auditlog.Segments(s.dir)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	last := min(sealed.Segment, s.pos.Segment)
	for _, b := range s.subs {
		b.mu.Lock()
		if b.needed.Before(keep) {
			keep = b.needed
		}
		b.mu.Unlock()
	}
	s.mu.Unlock()
	size, stay := int64(0), len(list)
	for stay > 0 {
		st, err := os.Stat(filepath.Join(s.dir, auditlog.SegmentName(list[stay-1])))
		if err != nil {
			return 0, fmt.Errorf("look at the spool: %w", err)
		}
		if size += st.Size(); size > s.SegmentBytes {
			break
		}
		stay--
	}
	removed := 0
	for i := 0; i+1 < stay && list[i] < last; i++ {
		if list[i] >= keep.Segment {
			// The next segment began when this one was over.
			h, err := auditlog.ReadHeader(filepath.Join(s.dir, auditlog.SegmentName(list[i+1])))
			if err != nil || !h.Created.Before(old) {
				break
			}
		}
		if err := os.Remove(filepath.Join(s.dir, auditlog.SegmentName(list[i]))); err != nil {
			return removed, fmt.Errorf("remove a segment that is sealed: %w", err)
		}
		removed++
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, s.FS.SyncDir(s.dir)
}
