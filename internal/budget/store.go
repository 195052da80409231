package budget

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// saveEvery is the least time between two writes of the file: what was spent in
	// the last second before a crash or a loss of power may be forgotten.
	saveEvery = time.Second

	fileVersion = 1
	// maxFile bounds what is read, bytes: maxCounts counts at their longest fit.
	maxFile = 64 << 20
)

// savedBook is the file.
type savedBook struct {
	V      int          `json:"v"`
	Clock  int64        `json:"clock"` // the book's, ns
	At     time.Time    `json:"at"`    // the node's at the same moment
	Counts []savedCount `json:"counts"`
}

type savedCount struct {
	Key    string   `json:"key"`
	Per    int64    `json:"per"` // ns
	Newest int64    `json:"newest"`
	Counts []uint32 `json:"counts"`
}

// Open reads the file, if there is one, and starts to keep it. A file that cannot be
// read is an error: to start from nothing would give back all that was spent.
func Open(c Config) (*Book, error) {
	b := &Book{cfg: c, counts: make(map[key]*count), most: maxCounts, read: c.Now(),
		wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{})}
	b.clock = b.read.UnixNano()
	if err := b.load(); err != nil {
		return nil, fmt.Errorf("%w; restore %s, or move it away to let everybody's budgets begin anew", err, c.File)
	}
	go b.keep()
	return b, nil
}

// Close writes what was spent and ends the writer. The book must not be used any more.
func (b *Book) Close() error {
	close(b.closed)
	<-b.done
	return b.save()
}

// keep writes the file soon after a change, and once in saveEvery at most.
func (b *Book) keep() {
	defer close(b.done)
	failed := false
	for {
		select {
		case <-b.closed:
			return
		case <-b.wake:
		}
		err := b.save()
		switch {
		case err != nil && !failed:
			b.cfg.Log.Error("what people spent of their budgets cannot be written and would be lost in a restart; it is tried again every second", "error", err)
		case err == nil && failed:
			b.cfg.Log.Info("what people spent of their budgets is written again")
		}
		failed = err != nil
		select {
		case <-b.closed:
			return
		case <-time.After(saveEvery):
		}
	}
}

// save writes the file if anything changed.
func (b *Book) save() error {
	saved := b.snapshot()
	if saved == nil {
		return nil
	}
	data, err := json.Marshal(saved)
	if err == nil {
		err = replaceFile(b.cfg.File, data)
	}
	if err != nil {
		b.mu.Lock()
		b.changed()
		b.mu.Unlock()
	}
	return err
}

// snapshot is the file's content; nil when nothing changed since the last one.
func (b *Book) snapshot() *savedBook {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dirty {
		return nil
	}
	b.dirty = false
	now := b.tick()
	b.sweep(now)
	s := &savedBook{V: fileVersion, Clock: now, At: b.read.UTC(), Counts: make([]savedCount, 0, len(b.counts))}
	for k, c := range b.counts {
		s.Counts = append(s.Counts, savedCount{Key: hex.EncodeToString(k[:]), Per: int64(c.per), Newest: c.newest, Counts: append([]uint32(nil), c.counts[:]...)})
	}
	return s
}

// replaceFile puts data in the place of a file in one step, and on the disk.
func replaceFile(path string, data []byte) (err error) {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// load takes over the file's counts, as they were when it was written: the book's
// clock goes on from there by the time that has passed on the node's, if any.
func (b *Book) load() error {
	st, err := os.Stat(b.cfg.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Size() > maxFile:
		return fmt.Errorf("the budgets in %s are longer than %d bytes", b.cfg.File, maxFile)
	}
	data, err := os.ReadFile(b.cfg.File)
	if err != nil {
		return err
	}
	var s savedBook
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("the budgets in %s cannot be read: %w", b.cfg.File, err)
	}
	if s.V != fileVersion || s.Clock < 0 || len(s.Counts) > maxCounts {
		return fmt.Errorf("the budgets in %s are not of this version of weir", b.cfg.File)
	}
	b.clock = s.Clock + max(int64(b.read.Sub(s.At)), 0)
	for _, saved := range s.Counts {
		id, err := hex.DecodeString(saved.Key)
		c := &count{window: window{per: time.Duration(saved.Per), newest: saved.Newest}}
		if err != nil || len(id) != len(key{}) || len(saved.Counts) != len(c.counts) || saved.Per <= 0 || saved.Newest < 0 {
			return fmt.Errorf("the budgets in %s are damaged", b.cfg.File)
		}
		copy(c.counts[:], saved.Counts)
		b.counts[key(id)] = c
	}
	return nil
}
