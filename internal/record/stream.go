package record

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// stream is one recording that runs.
type stream struct {
	recorder *Recorder
	about    auditlog.Event // with the Recording that it was opened with
	began    time.Time
	note     string

	mu          sync.Mutex
	file        File
	err         error  // after which nothing is written any more
	closed      bool   // nothing more comes
	raw         []byte // the chunk that is being made
	events      int64  // in it
	from, to    time.Time
	part        []byte // of a character of a terminal's output that is not whole
	chunk       int64  // those written
	offset, all int64  // bytes and events of these
	sum         sum    // over all of these
}

// errClosed is the answer to an entry that comes too late.
var errClosed = errors.New("the recording is closed")

// Originals implements session.Recording.
func (s *stream) Originals() bool { return s.about.Recording.Sealed }

// Write implements session.Recording.
func (s *stream) Write(e *session.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.closed {
		return errClosed
	}
	if e.Kind == session.EntryOriginal && !s.Originals() {
		return nil // nobody should have sent it; it is not written into what is not sealed
	}
	now := s.recorder.Now()
	var err error
	if s.about.Recording.Format == auditlog.RecordingCast {
		err = s.terminal(now, e)
	} else {
		s.raw, err = appendEvent(s.raw, now.Sub(s.began), e)
	}
	if err != nil {
		return s.fail(err)
	}
	if s.events == 0 {
		s.from = now
	}
	s.to = now
	s.events++
	if len(s.raw) >= maxChunk {
		return s.flush()
	}
	return nil
}

// terminal adds an entry of a terminal. A character whose bytes come in pieces waits
// for the rest of them.
func (s *stream) terminal(now time.Time, e *session.Entry) (err error) {
	text := e.Text
	switch e.Kind {
	case session.EntryOutput:
		b := append(s.part, e.Data.Bytes...)
		n := splitRune(b)
		text, s.part = string(b[:n]), append([]byte(nil), b[n:]...)
	case session.EntryInput:
		text = string(e.Data.Bytes)
	case session.EntryResize:
	default:
		return nil // what the gate says stands in the log
	}
	if text != "" {
		s.raw, err = appendCast(s.raw, now.Sub(s.began), e.Kind, text)
	}
	return err
}

// sweep writes a chunk that has waited for long enough.
func (s *stream) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && !s.closed && s.events > 0 && s.recorder.Now().Sub(s.from) >= chunkAge {
		_ = s.flush() // the next entry, or Close, gets the error
	}
}

// fail ends the writing: nobody knows what of the file is good.
func (s *stream) fail(err error) error {
	s.err = err
	s.recorder.failed(err)
	return err
}

// flush brings what there is to the disk, and then its hash into the log.
func (s *stream) flush() error {
	if len(s.raw) == 0 {
		return nil
	}
	r := s.recorder
	if err := r.room(); err != nil {
		return s.fail(err)
	}
	b, err := r.encode(s.raw)
	if err == nil {
		_, err = s.file.Write(b)
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return s.fail(err)
	}
	one := sha256.Sum256(b)
	from, to := s.from.UTC(), s.to.UTC()
	info := *s.about.Recording
	info.State, info.Chunk, info.Offset, info.Bytes = auditlog.RecordingChunk, s.chunk+1, s.offset, int64(len(b))
	info.SHA256, info.Events, info.From, info.To = sumText(one[:]), s.events, &from, &to
	ev := s.about
	ev.Recording = &info
	if err := r.Append(context.Background(), false, &ev); err != nil {
		return s.fail(err)
	}
	s.sum.Write(b)
	s.chunk, s.offset, s.all = s.chunk+1, s.offset+int64(len(b)), s.all+s.events
	s.events = 0
	if s.raw = s.raw[:0]; cap(s.raw) > 2*maxChunk {
		s.raw = nil
	}
	return nil
}

// Close implements session.Recording. It may be called more than once.
func (s *stream) Close(reason flow.Reason) error {
	r := s.recorder
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	r.mu.Lock()
	delete(r.streams, s)
	r.mu.Unlock()
	if s.err == nil {
		_ = s.flush()
	}
	failed := s.err
	err := s.file.Close()
	info := *s.about.Recording
	info.State, info.Chunk, info.Bytes, info.Events, info.SHA256 = auditlog.RecordingClosed, s.chunk, s.offset, s.all, s.sum.text()
	ev := s.about
	ev.Recording, ev.Reason = &info, string(reason)
	if failed != nil {
		ev.Reason = string(flow.ReasonRecorder)
		// What is in the file behind the last chunk is of no use, and stays.
	}
	if e := r.Append(context.Background(), false, &ev); e != nil {
		return errors.Join(failed, err, e) // the note stays: the next agent closes it
	}
	return errors.Join(failed, err, r.Files.Remove(s.note))
}

// encode makes a chunk.
func (r *Recorder) encode(raw []byte) ([]byte, error) {
	packed := r.encoder.EncodeAll(raw, nil)
	if len(r.SealTo) == 0 {
		return packed, nil
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r.SealTo...)
	if err == nil {
		_, err = w.Write(packed)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt to audit.seal_to: %w", err)
	}
	return out.Bytes(), nil
}

// sum is a running SHA-256.
type sum struct{ hash.Hash }

func newSum() sum { return sum{sha256.New()} }

func (s sum) text() string { return sumText(s.Sum(nil)) }

func sumText(b []byte) string { return "sha256:" + hex.EncodeToString(b) }
