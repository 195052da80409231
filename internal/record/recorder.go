package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"github.com/oklog/ulid/v2"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

const (
	// maxChunk is how much of a recording, in bytes before compression, is in memory
	// before it goes to the disk as a chunk; and chunkAge for how long it is.
	maxChunk = 256 << 10
	chunkAge = 5 * time.Second
	// sweep is how often chunks are looked at for their age.
	sweep = time.Second
	// expiry is how often old recordings are looked for.
	expiry = time.Hour
	// Reserve is what recordings leave free of the disk, bytes: the audit log is on it too.
	Reserve = 256 << 20
	// window is zstd's, bytes: it bounds what a reader needs.
	window = 256 << 10
)

// openDir holds a note for each recording that is not closed.
const openDir = "open"

// Dir is where recordings are, below the state directory.
func Dir(stateDir string) string { return filepath.Join(stateDir, "recordings") }

// Config is what a Recorder is made of.
type Config struct {
	Dir  string // see the function Dir
	Node string
	// SealTo encrypts recordings; empty: they are only compressed, and hold no originals.
	SealTo []age.Recipient
	// Append puts events into the audit log.
	Append func(ctx context.Context, disk bool, events ...*auditlog.Event) error
	// Retention is how long recordings stay; 0: for ever.
	Retention time.Duration
	Now       func() time.Time
	Log       *slog.Logger
	Files     Files // nil: the real ones
	// Problem is told what is wrong with recordings as it comes and goes; "" for nothing.
	Problem func(text string)
}

// Recorder makes recordings. It implements session.Recordings.
type Recorder struct {
	Config
	encoder *zstd.Encoder
	stop    chan struct{}
	done    chan struct{}

	mu      sync.Mutex
	streams map[*stream]struct{}
	closed  bool
}

// note is what a later agent has to know of a recording that was never closed.
type note struct {
	Event *auditlog.Event `json:"event"`
}

// Open makes a recorder, closes in the log what an agent before it left open, and
// removes what is too old.
func Open(c Config) (*Recorder, error) {
	if c.Files == nil {
		c.Files = osFiles{}
	}
	if c.Problem == nil {
		c.Problem = func(string) {}
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, err
	}
	r := &Recorder{Config: c, encoder: encoder, stop: make(chan struct{}), done: make(chan struct{}), streams: make(map[*stream]struct{})}
	if err := c.Files.MakeDir(filepath.Join(c.Dir, openDir)); err != nil {
		// Not fatal: whether there can be a session without a recorder is the policy's.
		r.failed(err)
	} else if err := r.recover(); err != nil {
		return nil, err
	}
	go r.run()
	return r, nil
}

// Close closes what is still being recorded, as drained.
func (r *Recorder) Close() error {
	close(r.stop)
	<-r.done
	r.mu.Lock()
	r.closed = true
	open := r.list()
	r.mu.Unlock()
	var errs []error
	for _, s := range open {
		errs = append(errs, s.Close(flow.ReasonDrained))
	}
	return errors.Join(append(errs, r.encoder.Close())...)
}

// list is the streams that are open; with mu held.
func (r *Recorder) list() []*stream {
	list := make([]*stream, 0, len(r.streams))
	for s := range r.streams {
		list = append(list, s)
	}
	return list
}

func (r *Recorder) run() {
	defer close(r.done)
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	var last time.Time
	for {
		if now := r.Now(); r.Retention > 0 && now.Sub(last) >= expiry {
			last = now
			if err := r.expire(now.Add(-r.Retention)); err != nil {
				r.Log.Error("old recordings could not be removed", "error", err)
			}
		}
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		open := r.list()
		r.mu.Unlock()
		for _, s := range open {
			s.sweep()
		}
	}
}

// failed says what keeps recordings from being made; worked that they can be again.
func (r *Recorder) failed(err error) {
	r.Problem(fmt.Sprintf("sessions cannot be recorded (%v); those that have to be are refused or ended", err))
}
func (r *Recorder) worked() { r.Problem("") }

// Ready implements session.Recordings.
func (r *Recorder) Ready() error {
	err := r.room()
	if err == nil {
		probe := filepath.Join(r.Dir, openDir, ".probe-"+ulid.Make().String())
		var f File
		if f, err = r.Files.Create(probe); err == nil {
			err = errors.Join(f.Close(), r.Files.Remove(probe))
		}
	}
	if err != nil {
		r.failed(err)
	} else {
		r.worked()
	}
	return err
}

// room says when recordings have to stop for lack of space.
func (r *Recorder) room() error {
	if err := r.Files.MakeDir(filepath.Join(r.Dir, openDir)); err != nil {
		return err
	}
	free, err := r.Files.Free(r.Dir)
	if err == nil && free < Reserve {
		err = fmt.Errorf("%d MiB are free below %s, and recordings leave %d MiB for the audit log; make room there", free>>20, r.Dir, int64(Reserve)>>20)
	}
	return err
}

// Start implements session.Recordings. The recording is on disk and in the log, as
// opened, when it returns.
func (r *Recorder) Start(ctx context.Context, about *auditlog.Event, format string) (session.Recording, error) {
	return r.start(ctx, about, format, 0, 0, "")
}

// StartTerminal is Start for a terminal of a size in characters.
func (r *Recorder) StartTerminal(ctx context.Context, about *auditlog.Event, width, height int, title string) (session.Recording, error) {
	return r.start(ctx, about, auditlog.RecordingCast, width, height, title)
}

func (r *Recorder) start(ctx context.Context, about *auditlog.Event, format string, width, height int, title string) (session.Recording, error) {
	s, err := r.open(ctx, about, format)
	if err != nil {
		r.failed(err)
		return nil, err
	}
	if format == auditlog.RecordingCast {
		b, err := json.Marshal(castHeader{Version: 2, Width: width, Height: height, Timestamp: s.began.Unix(), Title: title})
		if err != nil {
			return nil, errors.Join(err, s.Close(flow.ReasonInternal))
		}
		s.raw = append(append(s.raw, b...), '\n')
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.Join(errors.New("weir is stopping"), s.Close(flow.ReasonDrained))
	}
	r.streams[s] = struct{}{}
	r.worked()
	return s, nil
}

// open makes the file, the note and the event, in the order in which a crash leaves
// nothing that the next agent does not find.
func (r *Recorder) open(ctx context.Context, about *auditlog.Event, format string) (s *stream, err error) {
	if err := r.room(); err != nil {
		return nil, err
	}
	now := r.Now().UTC()
	id := ulid.Make().String()
	info := auditlog.RecordingInfo{ID: id, State: auditlog.RecordingOpened, Format: format, Sealed: len(r.SealTo) > 0,
		File: filepath.Join(now.Format(time.DateOnly), id+suffix(format, len(r.SealTo) > 0))}
	event := *about
	event.Kind, event.Recording = auditlog.Recording, &info
	s = &stream{recorder: r, about: event, began: now, sum: newSum(), note: filepath.Join(r.Dir, openDir, id)}
	dir := filepath.Join(r.Dir, filepath.Dir(info.File))
	if err := r.Files.MakeDir(dir); err != nil {
		return nil, err
	}
	if err := r.writeNote(s); err != nil {
		return nil, err
	}
	path := filepath.Join(r.Dir, info.File)
	if s.file, err = r.Files.Create(path); err == nil {
		if err = r.Files.SyncDir(dir); err == nil {
			err = r.Append(ctx, true, &event)
		}
	}
	if err != nil {
		var closing error
		if s.file != nil {
			closing = errors.Join(s.file.Close(), r.Files.Remove(path))
		}
		return nil, errors.Join(err, closing, r.Files.Remove(s.note))
	}
	return s, nil
}

func suffix(format string, sealed bool) string {
	name := ".jsonl.zst"
	if format == auditlog.RecordingCast {
		name = ".cast.zst"
	}
	if sealed {
		name += ".age"
	}
	return name
}

func (r *Recorder) writeNote(s *stream) error {
	b, err := json.Marshal(note{Event: &s.about})
	if err != nil {
		return err
	}
	f, err := r.Files.Create(s.note)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = r.Files.SyncDir(filepath.Dir(s.note))
	}
	if err != nil {
		return errors.Join(err, r.Files.Remove(s.note))
	}
	return nil
}

// recover closes in the log what an agent before this one left open: the hash of all
// that is there, so that nothing can be added to it any more.
func (r *Recorder) recover() error {
	notes, err := os.ReadDir(filepath.Join(r.Dir, openDir))
	if err != nil {
		return err
	}
	for _, n := range notes {
		path := filepath.Join(r.Dir, openDir, n.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var left note
		if json.Unmarshal(b, &left) == nil && left.Event != nil && left.Event.Recording != nil { // else: it was cut while it was written, so nothing was recorded
			ev, info := *left.Event, *left.Event.Recording
			info.State = auditlog.RecordingClosed
			if info.SHA256, info.Bytes, err = sumFile(filepath.Join(r.Dir, info.File)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			ev.Recording, ev.Reason = &info, string(flow.ReasonAgentLost)
			if err := r.Append(context.Background(), true, &ev); err != nil {
				return err
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

func sumFile(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	sum := newSum()
	n, err := io.Copy(sum, f)
	return sum.text(), n, err
}

// expire removes the recordings of days that were over before a time, and says so in
// the log first.
func (r *Recorder) expire(before time.Time) error {
	days, err := os.ReadDir(r.Dir)
	if err != nil {
		return err
	}
	for _, d := range days {
		day, err := time.Parse(time.DateOnly, d.Name())
		if err != nil || !day.AddDate(0, 0, 1).Before(before) {
			continue
		}
		if err := r.expireDay(d.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recorder) expireDay(day string) error {
	dir := filepath.Join(r.Dir, day)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		id := idOf(f.Name())
		if r.isOpen(id) { // a session that is as old as that
			continue
		}
		info := auditlog.RecordingInfo{ID: id, State: auditlog.RecordingRemoved, File: filepath.Join(day, f.Name())}
		if err := r.Append(context.Background(), true, &auditlog.Event{Node: r.Node, Kind: auditlog.Recording, Recording: &info, Reason: "it is older than audit.retention"}); err != nil {
			return err
		}
		if err := r.Files.Remove(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	if err := r.Files.Remove(dir); err != nil && !errors.Is(err, os.ErrExist) && len(files) == 0 {
		return err
	}
	return nil
}

func (r *Recorder) isOpen(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.list(), func(s *stream) bool { return s.about.Recording.ID == id })
}

// idOf is the id in a file's name.
func idOf(name string) string {
	for i := range name {
		if name[i] == '.' {
			return name[:i]
		}
	}
	return name
}
