package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// log is an audit log in memory.
type log struct {
	mu     sync.Mutex
	events []*auditlog.Event
	fail   error
}

func (l *log) append(_ context.Context, _ bool, events ...*auditlog.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	for _, e := range events {
		c := *e
		l.events = append(l.events, &c)
	}
	return nil
}

func (l *log) index() *Index {
	x := &Index{}
	for _, e := range l.events {
		x.Take(e)
	}
	return x
}

// faults is the real disk with an error in the way.
type faults struct {
	osFiles
	write, sync, create error
	free                int64
}

type faultFile struct {
	File
	f *faults
}

func (f *faults) Create(name string) (File, error) {
	if f.create != nil {
		return nil, f.create
	}
	file, err := f.osFiles.Create(name)
	return faultFile{file, f}, err
}

func (f *faults) Free(string) (int64, error) { return f.free, nil }

func (f faultFile) Write(b []byte) (int, error) {
	if f.f.write != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, f.f.write
	}
	return f.File.Write(b)
}

func (f faultFile) Sync() error {
	if f.f.sync != nil {
		return f.f.sync
	}
	return f.File.Sync()
}

func open(t *testing.T, dir string, l *log, change func(*Config)) *Recorder {
	t.Helper()
	c := Config{Dir: dir, Node: "n", Append: l.append, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	r, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func start(t *testing.T, r *Recorder) session.Recording {
	t.Helper()
	s, err := r.Start(t.Context(), &auditlog.Event{Node: "n", Flow: "f", Backend: "shop"}, auditlog.RecordingEvents)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, sealed := range []bool{false, true} {
		dir, l := t.TempDir(), &log{}
		r := open(t, dir, l, func(c *Config) {
			if sealed {
				c.SealTo = []age.Recipient{id.Recipient()}
			}
		})
		s := start(t, r)
		big := strings.Repeat("x", 100_000)
		entries := []session.Entry{
			{Kind: session.EntryAction, Action: "a", Text: "SELECT 'ä\x00\"'", Params: []string{"1", big}},
			{Kind: session.EntryRow, N: 1, Values: []session.Value{{Bytes: []byte("a")}, {Null: true}, {Bytes: []byte("\xff\x00")}, {Bytes: []byte("cu\xc3"), Cut: 7}, {Bytes: []byte{}}}},
			{Kind: session.EntryOriginal, N: 1, Column: 0, Data: session.Value{Bytes: []byte("4111")}},
			{Kind: session.EntryCopyOut, Data: session.Value{Bytes: []byte(big)}},
			{Kind: session.EntryCopyOut, Data: session.Value{Bytes: []byte(big)}},
			{Kind: session.EntryOutcome, Action: "a", Status: "ok", N: 1},
		}
		for i := range entries {
			if err := s.Write(&entries[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(s.Close(flow.ReasonClientClosed), s.Close(flow.ReasonDrained), r.Close()); err != nil {
			t.Fatal(err)
		}
		list := l.index().Sessions()
		if len(list) != 1 || list[0].State != auditlog.RecordingClosed || list[0].Reason != "client_closed" || list[0].Chunks < 2 || list[0].Sealed != sealed {
			t.Fatalf("%+v", list)
		}
		if err := list[0].Verify(dir); err != nil {
			t.Error(err)
		}
		ids := []age.Identity{id}
		if sealed {
			if err := list[0].Read(dir, nil, nil); !errors.As(err, new(*SealedError)) {
				t.Errorf("without a key: %v", err)
			}
		}
		var got []session.Entry
		err := list[0].Read(dir, ids, func(b []byte) error {
			return Lines(b, false, func(x Line) error { got = append(got, x.Entry); return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		want := len(entries)
		if !sealed {
			want-- // the original
		}
		if len(got) != want {
			t.Fatalf("%d entries of %d", len(got), want)
		}
		if v := got[1].Values; string(v[0].Bytes) != "a" || !v[1].Null || string(v[2].Bytes) != "\xff\x00" || string(v[3].Bytes) != "cu" || v[3].Cut != 8 || v[4].Null {
			t.Errorf("values: %v", v)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, openDir)); len(left) != 0 {
			t.Errorf("notes are left: %v", left)
		}
	}
}

// TestTerminal: asciicast v2, with a character that comes in two pieces.
func TestTerminal(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	r := open(t, dir, l, nil)
	s, err := r.StartTerminal(t.Context(), &auditlog.Event{Flow: "f"}, 80, 24, "vi")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []session.Entry{
		{Kind: session.EntryOutput, Data: session.Value{Bytes: []byte("a\xc3")}},
		{Kind: session.EntryOutput, Data: session.Value{Bytes: []byte("\xa4b\xff")}},
		{Kind: session.EntryResize, Text: "100x30"},
		{Kind: session.EntryOutcome, Action: "not in here"},
	} {
		if err := s.Write(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(flow.ReasonClientClosed), r.Close()); err != nil {
		t.Fatal(err)
	}
	var raw []byte
	if err := l.index().Sessions()[0].Read(dir, nil, func(b []byte) error { raw = append(raw, b...); return nil }); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	var header map[string]any
	if json.Unmarshal(lines[0], &header) != nil || header["version"] != 2.0 || header["width"] != 80.0 {
		t.Errorf("header: %s", lines[0])
	}
	var text []string
	for _, b := range lines[1:] {
		var ev []any
		if err := json.Unmarshal(b, &ev); err != nil || len(ev) != 3 {
			t.Fatalf("%s: %v", b, err)
		}
		text = append(text, ev[1].(string)+ev[2].(string))
	}
	if got := strings.Join(text, "|"); got != "oa|oäb\ufffd|r100x30" {
		t.Errorf("events: %q", got)
	}
}

// TestFaults: whatever fails, the caller hears of it, and what the log says of the
// recording stays true.
func TestFaults(t *testing.T) {
	boom := errors.New("boom")
	for name, set := range map[string]func(*faults, *log){
		"write": func(f *faults, _ *log) { f.write = boom },
		"sync":  func(f *faults, _ *log) { f.sync = boom },
		"full":  func(f *faults, _ *log) { f.free = Reserve - 1 },
		"log":   func(_ *faults, l *log) { l.fail = boom },
	} {
		t.Run(name, func(t *testing.T) {
			dir, l, f := t.TempDir(), &log{}, &faults{free: 1 << 40}
			problem := ""
			r := open(t, dir, l, func(c *Config) { c.Files = f; c.Problem = func(s string) { problem = s } })
			s := start(t, r)
			if err := s.Write(&session.Entry{Kind: session.EntryDone, Text: strings.Repeat("y", maxChunk)}); err != nil {
				t.Fatal(err)
			}
			set(f, l)
			if err := s.Write(&session.Entry{Kind: session.EntryDone, Text: strings.Repeat("z", maxChunk)}); err == nil || problem == "" {
				t.Errorf("nothing is said: %v %q", err, problem)
			}
			if err := s.Write(&session.Entry{Kind: session.EntryDone}); err == nil {
				t.Error("it goes on after a failure")
			}
			if name != "log" {
				if _, err := r.Start(t.Context(), &auditlog.Event{}, auditlog.RecordingEvents); name != "log" && err == nil {
					t.Error("another recording begins")
				}
			}
			f.write, f.sync, f.free, l.fail = nil, nil, 1<<40, nil
			if err := s.Close(flow.ReasonRecorder); err == nil {
				t.Error("the end does not say that something is missing")
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			x := l.index().Sessions()[0]
			if err := x.Verify(dir); err != nil || x.State != auditlog.RecordingClosed || x.Reason != "recorder_failed" || x.Chunks != 1 {
				t.Errorf("%v %+v", err, x)
			}
		})
	}
}

// TestAgentLost: the next agent closes what a killed one left, with the hash of all
// that is there.
func TestAgentLost(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	r := open(t, dir, l, nil)
	s := start(t, r)
	for range 2 {
		if err := s.Write(&session.Entry{Kind: session.EntryDone, Text: strings.Repeat("y", maxChunk)}); err != nil {
			t.Fatal(err)
		}
	}
	// Killed: neither is closed. Its file goes on to be there.
	next := open(t, dir, l, nil)
	x := l.index().Sessions()[0]
	if err := x.Verify(dir); err != nil || x.Reason != "agent_lost" || x.Chunks != 2 {
		t.Errorf("%v %+v", err, x)
	}
	file := filepath.Join(dir, x.File)
	b, _ := os.ReadFile(file)
	b[0] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var wrong *WrongError
	if err := x.Verify(dir); !errors.As(err, &wrong) || wrong.Chunk != 1 {
		t.Errorf("a changed chunk: %v", err)
	}
	if err := x.Read(dir, nil, func([]byte) error { t.Error("a changed chunk is shown"); return nil }); !errors.As(err, &wrong) {
		t.Error(err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	_ = s.Close(flow.ReasonAgentLost)
	_ = r.Close()
}

// TestRetention: what is old is named in the log and gone; what still runs stays.
func TestRetention(t *testing.T) {
	dir, l := t.TempDir(), &log{}
	r := open(t, dir, l, nil)
	old, running := start(t, r), start(t, r)
	if err := old.Close(flow.ReasonClientClosed); err != nil {
		t.Fatal(err)
	}
	if err := r.expire(time.Now().AddDate(0, 0, 3)); err != nil {
		t.Fatal(err)
	}
	list := l.index().Sessions()
	if list[0].State != auditlog.RecordingRemoved || list[1].State != "recording" {
		t.Errorf("%+v %+v", list[0], list[1])
	}
	if _, err := os.Stat(filepath.Join(dir, list[0].File)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := errors.Join(running.Close(flow.ReasonClientClosed), r.Close(), list[1].Verify(dir)); err != nil {
		t.Error(err)
	}
}

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"plain\r\n\ttext ä 漢":                "plain\r\n\ttext ä 漢",
		"\x1b[1;31mred\x1b[0m":               "\x1b[1;31mred\x1b[0m",
		"\x1b[?1049h\x1b[2J\x1b[3;4Hx":       "\x1b[?1049h\x1b[2J\x1b[3;4Hx",
		"a\x1b]0;title\x07b":                 "ab",
		"a\x1b]52;c;aGk=\x1b\\b":             "ab",
		"a\x1bP$qm\x1b\\b\x1b_x\x1b\\c":      "abc",
		"a\x1b[6nb\x1b[cc\x1b[>cd\x1b[21te":  "abcde",
		"a\x1b[?1000hb\x1b[?2004hc\x1b[?1hd": "abcd",
		"a\x1b[?25;1000hb":                   "ab",
		"\a\x05x\x7f":                        "x",
		"a\x1bcb\x1b=c":                      "abc",
		"a\u009b6nb":                         "a6nb",
	} {
		h := Harmless{}
		whole := h.Text(in)
		h = Harmless{}
		pieces := ""
		for i := range len(in) {
			pieces += h.Text(in[i : i+1])
		}
		if whole != want {
			t.Errorf("%q: %q, want %q", in, whole, want)
		}
		if strings.HasPrefix(in, "a\x1b") && pieces != want {
			t.Errorf("%q in pieces: %q, want %q", in, pieces, want)
		}
	}
}
