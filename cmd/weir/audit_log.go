package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// logReader reads the log for a command: what is damaged it says on stderr and
// passes, what retention removed it passes.
type logReader struct {
	*auditlog.LogReader
	c       *cli.Context
	damaged bool
}

// openLog opens the log at its start.
func openLog(c *cli.Context) (*logReader, error) { return openLogAt(c, 0) }

// openLogAt opens the log at the event with that number.
func openLogAt(c *cli.Context, seq uint64) (*logReader, error) {
	dir, err := logDir(c)
	if err != nil {
		return nil, err
	}
	key, err := readLogKey(auditlog.PublicKeyFile(dir))
	if err != nil {
		return nil, err
	}
	r := &logReader{c: c}
	r.LogReader, err = auditlog.OpenLogAt(dir, key, seq)
	if err := r.pass(err); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// pass takes damage for said.
func (r *logReader) pass(err error) error {
	var spool *auditlog.DamageError
	var sealed *auditlog.SealedError
	if !errors.As(err, &spool) && !errors.As(err, &sealed) {
		return err
	}
	r.damaged = true
	logDamaged(r.c, err)
	r.Skip()
	return nil
}

// Next returns the next event; io.EOF means that there is no more for now.
func (r *logReader) Next() (auditlog.LogEvent, error) {
	for {
		ev, err := r.LogReader.Next()
		var removed *auditlog.RemovedError
		if errors.As(err, &removed) {
			continue
		}
		if err == nil {
			return ev, nil
		}
		if err := r.pass(err); err != nil {
			return ev, err
		}
	}
}

// logDir is the state directory of a log, which must be there.
func logDir(c *cli.Context) (string, error) {
	dir, err := stateDir(c)
	if err != nil {
		return "", err
	}
	for _, path := range []string{auditlog.SpoolDir(dir), auditlog.TilesDir(dir)} {
		_, err = os.Stat(path)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no audit log in %s; name the state directory of the agent with --dir", dir)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("the audit log in %s is not yours to read; ask root on this node", dir)
	}
	return dir, err
}

// readLogKey reads a log's public key.
func readLogKey(file string) (auditlog.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return auditlog.PublicKey{}, fmt.Errorf("read the log's public key: %w", err)
	}
	key, err := auditlog.ParsePublicKey(string(text))
	if err != nil {
		return key, cli.Exit(fmt.Sprintf("%s: %v", file, err), exitUnproven)
	}
	return key, nil
}

// lastEvents returns the last n events that f selects, and a reader behind the
// last event of all. It begins near the end and looks further back as long as it
// does not find enough, so the length of the log does not matter when they are
// near its end.
func lastEvents(c *cli.Context, f *auditlog.Filter, n int) (*logReader, [][]byte, error) {
	newest, err := lastSeq(c)
	if err != nil {
		return nil, nil, err
	}
	for back := uint64(max(4*n, 1000)); ; back *= 8 {
		from := uint64(0)
		if newest > back {
			from = newest - back
		}
		r, last, err := eventsFrom(c, from, f, n)
		if err != nil || len(last) == n || from == 0 {
			return r, last, err
		}
		r.Close()
	}
}

// lastSeq is the number of the last event, as far as it can be told.
func lastSeq(c *cli.Context) (uint64, error) {
	dir, err := logDir(c)
	if err != nil {
		return 0, err
	}
	newest := uint64(0)
	if text, err := os.ReadFile(auditlog.PublicKeyFile(dir)); err == nil {
		if key, err := auditlog.ParsePublicKey(string(text)); err == nil {
			newest = lastSealed(dir, key)
		}
	}
	segments, err := auditlog.Segments(auditlog.SpoolDir(dir))
	if err != nil || len(segments) == 0 {
		return newest, nil
	}
	r, err := auditlog.OpenDirSegment(auditlog.SpoolDir(dir), segments[len(segments)-1])
	if err != nil {
		return newest, nil
	}
	defer r.Close()
	for c.Context.Err() == nil {
		rec, err := r.Next()
		if err != nil {
			break
		}
		newest = max(newest, rec.Seq)
	}
	return newest, c.Context.Err()
}

// lastSealed is the number of the last event in the sealed log, 0 when it cannot
// be told.
func lastSealed(dir string, key auditlog.PublicKey) uint64 {
	tiles, err := auditlog.OpenTiles(auditlog.TilesDir(dir), key)
	if err != nil || tiles.Head().Size == 0 {
		return 0
	}
	last := uint64(0)
	for e, err := range tiles.Entries(tiles.Head().Size-1, tiles.Head().Size) {
		if err == nil {
			last = e.Seq
		}
	}
	return last
}

// eventsFrom returns the last n events that f selects from number seq on, and the
// reader behind them.
func eventsFrom(c *cli.Context, seq uint64, f *auditlog.Filter, n int) (*logReader, [][]byte, error) {
	r, err := openLogAt(c, seq)
	if err != nil {
		return nil, nil, err
	}
	var list [][]byte
	for c.Context.Err() == nil {
		rec, err := r.Next()
		if err == io.EOF {
			return r, list, nil
		}
		if err != nil {
			r.Close()
			return nil, nil, err
		}
		if _, ok, _ := selected(f, rec); ok && n > 0 {
			if len(list) == n {
				list = append(list[:0], list[1:]...)
			}
			list = append(list, append([]byte(nil), rec.Payload...))
		}
	}
	r.Close()
	return nil, nil, c.Context.Err()
}

// followEvents prints events as they come until ctx ends.
func followEvents(ctx context.Context, r *logReader, f *auditlog.Filter, out *auditLine) error {
	for {
		rec, err := r.Next()
		if err == io.EOF {
			if err := out.w.Flush(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followPoll):
			}
			continue
		}
		if err != nil {
			return err
		}
		ev, ok, err := selected(f, rec)
		if err != nil {
			return err
		}
		if ok {
			if err := out.print(ev, rec.Payload); err != nil {
				return err
			}
		}
	}
}
