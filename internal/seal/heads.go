package seal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// keepHead keeps the published head, if it is not the last one that was kept.
func (s *Sealer) keepHead() error {
	tiles, err := auditlog.OpenTiles(s.dir, s.key)
	if err != nil {
		return err
	}
	head, last := tiles.Head(), auditlog.TreeHead{}
	for h, err := range auditlog.KeptHeads(s.StateDir, s.key) {
		if err != nil {
			return err
		}
		last = h
	}
	s.keptAt = s.Now()
	if last.Size == head.Size && last.Root == head.Root || head.Size == 0 {
		return nil
	}
	line, err := json.Marshal(auditlog.KeptHead{Time: s.keptAt.UTC(), Note: string(head.Note)})
	if err != nil {
		return err
	}
	if err = audit.AppendLine(s.keepFile(), line); err == nil {
		err = s.FS.SyncDir(filepath.Dir(s.keepFile()))
	}
	if err != nil {
		s.keptAt = time.Time{}
		return fmt.Errorf("keep a checkpoint: %w", err)
	}
	return nil
}

// checkHeads holds the log to the last head that was kept: one that was cut, or
// of which an older copy was put back, must not be continued.
func (s *Sealer) checkHeads() error {
	last, kept := auditlog.TreeHead{}, false
	for h, err := range auditlog.KeptHeads(s.StateDir, s.key) {
		if err != nil {
			return err
		}
		last, kept = h, true
	}
	if !kept {
		return nil
	}
	tiles, err := auditlog.OpenTiles(s.dir, s.key)
	if errors.Is(err, os.ErrNotExist) {
		return &auditlog.SealedError{File: auditlog.CheckpointFile,
			Why: fmt.Sprintf("the sealed log is missing, and a kept checkpoint is of %d entries; restore it, or keep %s elsewhere to begin a new one", last.Size, s.keepFile())}
	}
	if err != nil {
		return err
	}
	if last.Size > tiles.Head().Size {
		return &auditlog.SealedError{File: auditlog.CheckpointFile, Index: tiles.Head().Size,
			Why: fmt.Sprintf("the log ends here, but a kept checkpoint is of %d entries: an older copy was put back, or its end was cut off", last.Size)}
	}
	root, err := tiles.Root(last.Size)
	if err == nil && root != last.Root {
		err = &auditlog.SealedError{File: "../checkpoints", Why: fmt.Sprintf("the first %d entries are not those of a checkpoint that was kept", last.Size)}
	}
	return err
}
