package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

const width = auditlog.TileWidth

// expire removes the bundles whose events are all older than old, oldest first,
// and the long events in them. Their hashes stay, so what is left still verifies.
// The log says so before: a crash in between leaves more than it says, never less.
// The newest bundle always stays.
func (s *Sealer) expire(ctx context.Context, old time.Time) error {
	tiles, err := auditlog.OpenTiles(s.dir, s.key)
	if err != nil {
		return err
	}
	from, err := firstBundle(tiles)
	if err != nil {
		return err
	}
	to := from
	for ; (to+1)*width < tiles.Head().Size && ctx.Err() == nil; to++ {
		expired, err := isOlder(tiles, to, old)
		if err != nil {
			return err
		}
		if !expired {
			break
		}
	}
	if to == from {
		return nil
	}
	err = s.Spool.Append(ctx, true, &auditlog.Event{Kind: auditlog.RetentionEvent,
		Reason:    fmt.Sprintf("%d events are older than audit.retention and are removed; their hashes stay", (to-from)*width),
		Retention: &auditlog.Retention{From: from * width, To: to * width, Count: (to - from) * width, Before: old.UTC()}})
	if err != nil {
		return err
	}
	for n := from; n < to; n++ {
		if err := s.removeBundle(tiles, n); err != nil {
			return err
		}
	}
	s.Log.Info("expired events were removed from the sealed log", "from", from*width, "to", to*width)
	return nil
}

// firstBundle is the first bundle that is there: they go from the front.
func firstBundle(tiles *auditlog.Tiles) (uint64, error) {
	lo, hi := uint64(0), tiles.Head().Size/width
	for lo < hi {
		mid := (lo + hi) / 2
		var gone *auditlog.RemovedError
		err := eachOf(tiles, mid, func(auditlog.Entry) error { return errEnough })
		switch {
		case errors.As(err, &gone) && gone.To-gone.From > 1:
			lo = mid + 1
		case err == nil, errors.Is(err, errEnough), errors.As(err, &gone):
			hi = mid
		default:
			return 0, err
		}
	}
	return lo, nil
}

var errEnough = errors.New("enough")

func eachOf(tiles *auditlog.Tiles, n uint64, do func(auditlog.Entry) error) error {
	for e, err := range tiles.Entries(n*width, (n+1)*width) {
		if err == nil {
			err = do(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isOlder reports whether all events of a bundle are older than old.
func isOlder(tiles *auditlog.Tiles, n uint64, old time.Time) (bool, error) {
	older := true
	err := eachOf(tiles, n, func(e auditlog.Entry) error {
		var ev struct {
			Time time.Time `json:"time"`
		}
		if err := json.Unmarshal(e.Payload, &ev); err != nil {
			return fmt.Errorf("read the sealed log: index %d: %w", e.Index, err)
		}
		if older = ev.Time.Before(old); !older {
			return errEnough
		}
		return nil
	})
	var gone *auditlog.RemovedError
	if errors.Is(err, errEnough) || errors.As(err, &gone) {
		err = nil // what is gone already was older
	}
	return older, err
}

// removeBundle removes what holds the events of a bundle; the bundle itself last,
// since it names the others.
func (s *Sealer) removeBundle(tiles *auditlog.Tiles, n uint64) error {
	for _, file := range tiles.LongFiles(n) {
		if err := os.Remove(filepath.Join(s.dir, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove expired events: %w", err)
		}
	}
	path := filepath.Join(s.dir, auditlog.BundleFile(n, width))
	if err := os.RemoveAll(path + ".p"); err != nil {
		return fmt.Errorf("remove expired events: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove expired events: %w", err)
	}
	return s.FS.SyncDir(filepath.Dir(path))
}
