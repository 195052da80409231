package audit

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// checkpoint signs where the log stands, into the log and into the file beside
// it. Without anything new it does nothing, unless it is the final one, behind
// which nothing follows. The log is on disk before the file is written: a
// checkpoint that is ahead of the log would look like a log that was cut.
func (s *Spool) checkpoint(final bool) error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	s.mu.Lock()
	if s.failure != nil || s.closed || (!s.unsigned && !final) {
		s.mu.Unlock()
		return nil
	}
	at, pos, err := s.signLocked(final)
	if final && err == nil {
		s.closed = true // nothing comes behind the signed end
		s.refusing.Store(true)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.sync(at); err != nil {
		return err
	}
	if err := s.writeCheckpoint(pos, final); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fail(auditlog.GapWrite, err)
	}
	return nil
}

// signLocked writes a checkpoint into the log. Called with mu held.
func (s *Spool) signLocked(final bool) (place, auditlog.Position, error) {
	buf := append(s.buf[:0], s.pos.Chain[:]...)
	buf, end, err := s.appendCheckpoint(buf, s.pos, final)
	if err != nil {
		return place{}, s.pos, s.fail(auditlog.GapWrite, err)
	}
	if err := s.put(buf[len(end.Chain):], end); err != nil {
		return place{}, s.pos, err
	}
	s.unsigned = false
	return s.placeLocked(), s.pos, nil
}

// appendCheckpoint appends a record with the signed position at to buf, and
// returns the position behind it.
func (s *Spool) appendCheckpoint(buf []byte, at auditlog.Position, final bool) ([]byte, auditlog.Position, error) {
	start := len(buf)
	buf, mark := auditlog.BeginRecord(buf, auditlog.RecordCheckpoint)
	buf = append(buf, s.signer.sign(auditlog.Checkpoint{Position: at, Time: s.Now(), Closed: final, Inside: true})...)
	buf, chain, err := auditlog.SealRecord(buf, mark)
	at.Chain = chain
	at.Offset += int64(len(buf) - start)
	return buf, at, err
}

// writeCheckpoint replaces the file beside the log. The rename itself need not
// reach the disk: an older checkpoint is a right one too.
func (s *Spool) writeCheckpoint(pos auditlog.Position, final bool) error {
	note := s.signer.sign(auditlog.Checkpoint{Position: pos, Time: s.Now(), Closed: final})
	path := filepath.Join(s.dir, auditlog.CheckpointFile)
	if err := WriteWhole(s.FS, path, note); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	if final {
		return s.FS.SyncDir(s.dir)
	}
	return nil
}

// WriteWhole replaces a file in one step: after any end the old bytes stand there
// or the new ones, whole. The name is on disk after SyncDir.
func WriteWhole(fs FS, path string, b []byte) error {
	f, err := fs.Create(path + tempSuffix)
	if err != nil {
		return err
	}
	n, err := f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return fs.Rename(path+tempSuffix, path)
}
