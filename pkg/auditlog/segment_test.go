package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func sampleEvent(seq uint64) *Event {
	return &Event{V: Version, Seq: seq, Time: time.Date(2026, 11, 23, 6, 0, 0, int(seq), time.UTC), Node: "node-a", Kind: ActionEvent,
		Flow: fmt.Sprint("F", seq), Backend: "orders", Protocol: "postgres", Verdict: "allow", Rule: "developers read the shop",
		Principal: &Principal{Issuer: "https://idp", Subject: "s", User: "ann@example.com", Groups: []string{"dev"}, Kind: "human",
			Actor: &Actor{Subject: "agent-7", User: "Bot"}},
		Action: &Action{ID: fmt.Sprint("A", seq), Phase: PhaseIntent, Verbs: []string{"select"}, Resources: []string{"shop.orders"}, Text: "SELECT 1"}}
}

// testKey is a key made of nothing but a test's wish.
func testKey() (PublicKey, ed25519.PrivateKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	return PublicKey{Name: "node-a/weir-spool", Key: private.Public().(ed25519.PublicKey)}, private
}

func signed(c Checkpoint) []byte {
	key, private := testKey()
	c.Origin = key.Name
	return append(c.Text(), FormatSignature(key, ed25519.Sign(private, c.Text()))...)
}

// segmentBytes makes segment n behind prev with count events and a checkpoint
// after each third one.
func segmentBytes(t testing.TB, prev Position, count int) ([]byte, Position) {
	t.Helper()
	cause := CauseRotate
	if prev.Segment == 0 {
		cause = CauseFirst
	}
	b, chain, err := AppendHeader(nil, Header{Cause: cause, Segment: prev.Segment + 1, First: prev.Seq + 1,
		Created: time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC), Prev: prev.Chain, Node: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	pos := Position{Segment: prev.Segment + 1, Offset: int64(len(b)), Seq: prev.Seq, Chain: chain}
	put := func(kind RecordKind, payload []byte) {
		grown, mark := BeginRecord(b, kind)
		if b, pos.Chain, err = SealRecord(append(grown, payload...), mark); err != nil {
			t.Fatal(err)
		}
		pos.Offset = int64(len(b))
	}
	for i := range count {
		j, err := encode(t, sampleEvent(pos.Seq+1))
		if err != nil {
			t.Fatal(err)
		}
		put(RecordEvent, j)
		pos.Seq++
		if i%3 == 2 {
			put(RecordCheckpoint, signed(Checkpoint{Position: pos, Inside: true}))
		}
	}
	return b, pos
}

func writeSpool(t testing.TB, counts ...int) (dir string, end Position) {
	t.Helper()
	dir = t.TempDir()
	for _, n := range counts {
		var b []byte
		b, end = segmentBytes(t, end, n)
		if err := os.WriteFile(filepath.Join(dir, SegmentName(end.Segment)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, CheckpointFile), signed(Checkpoint{Position: end}), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, end
}

func TestSegmentReader(t *testing.T) {
	b, end := segmentBytes(t, Position{}, 10)
	for name, src := range map[string]io.Reader{
		"at once": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b)),
		"halves": iotest.HalfReader(bytes.NewReader(b)), "with the end": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		r, err := NewSegmentReader(src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		events := 0
		for {
			rec, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if rec.Kind == RecordEvent {
				events++
				var ev Event
				if err := json.Unmarshal(rec.Payload, &ev); err != nil || ev.Seq != rec.Seq || rec.Seq != uint64(events) {
					t.Fatalf("%s: event %d: %v", name, events, err)
				}
			}
		}
		if events != 10 || r.Position() != end {
			t.Errorf("%s: %d events, position %+v, want %+v", name, events, r.Position(), end)
		}
	}
}

// TestLongRecords are as long as records may be, and longer.
func TestLongRecords(t *testing.T) {
	b, _, err := AppendHeader(nil, Header{Cause: CauseFirst, Segment: 1, First: 1, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		grown, mark := BeginRecord(b, RecordCarry)
		if b, _, err = SealRecord(append(grown, make([]byte, MaxPayload)...), mark); err != nil {
			t.Fatal(err)
		}
	}
	grown, mark := BeginRecord(b, RecordCarry)
	if _, _, err := SealRecord(append(grown, make([]byte, MaxPayload+1)...), mark); !errors.Is(err, ErrTooLong) {
		t.Errorf("a record that is too long: %v", err)
	}
	r, err := NewSegmentReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if rec, err := r.Next(); err != nil || len(rec.Payload) != MaxPayload {
			t.Fatalf("%d bytes, %v", len(rec.Payload), err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestReaderGrows(t *testing.T) {
	b, _ := segmentBytes(t, Position{}, 4)
	dir := t.TempDir()
	path := filepath.Join(dir, SegmentName(1))
	r, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("an empty directory: %v", err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head, err := NewSegmentReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	start := int(head.Position().Offset)
	if _, err := f.Write(b[:start]); err != nil {
		t.Fatal(err)
	}
	events := 0
	for _, c := range b[start:] { // grows a byte at a time, as seen by a reader
		if _, err := f.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}
		rec, err := r.Next()
		if err == nil && rec.Kind == RecordEvent {
			events++
		}
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	if events != 4 {
		t.Errorf("%d events", events)
	}
}

// TestReaderTakenBack reads records that their writer takes back before it begins
// the next segment: partly returned, and read ahead only.
func TestReaderTakenBack(t *testing.T) {
	for returned := 0; returned <= 3; returned++ {
		dir := t.TempDir()
		kept, end := segmentBytes(t, Position{}, 2)
		long, _ := segmentBytes(t, Position{}, 5)
		path := filepath.Join(dir, SegmentName(1))
		if err := os.WriteFile(path, long[:len(long)-10], 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range 2 + returned { // the third of these is a checkpoint
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if returned == 3 {
			if _, err := r.Next(); err != io.EOF {
				t.Fatalf("at the torn record: %v", err)
			}
		}
		next, last := segmentBytes(t, end, 2)
		if err := os.WriteFile(path, kept, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, SegmentName(2)), next, 0o600); err != nil {
			t.Fatal(err)
		}
		var seqs []uint64
		for {
			rec, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%d returned: %v", returned, err)
			}
			if rec.Kind == RecordEvent && rec.End.Segment == 2 {
				seqs = append(seqs, rec.Seq)
			}
		}
		if len(seqs) != 2 || seqs[0] != 3 || r.Position() != last {
			t.Errorf("%d returned: events %v of the next segment", returned, seqs)
		}
	}
}

func TestReaderOverSegmentsAndDamage(t *testing.T) {
	dir, end := writeSpool(t, 5, 5, 5)
	collect := func() (seqs []uint64, damages int) {
		r, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			rec, err := r.Next()
			var damage *DamageError
			switch {
			case err == io.EOF:
				return seqs, damages
			case errors.As(err, &damage):
				damages++
				r.Skip()
			case err != nil:
				t.Fatal(err)
			case rec.Kind == RecordEvent:
				seqs = append(seqs, rec.Seq)
			}
		}
	}
	seqs, damages := collect()
	if len(seqs) != 15 || damages != 0 || seqs[14] != end.Seq {
		t.Fatalf("%v, %d damages", seqs, damages)
	}
	path := filepath.Join(dir, SegmentName(2))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b       []byte
		seqs    int
		damages int
	}{
		"a byte":        {bytes.Replace(b, []byte(`"F8"`), []byte(`"G8"`), 1), 12, 2},
		"cut":           {b[:len(b)-5], 14, 2},
		"cut header":    {b[:20], 10, 2},
		"not a segment": {[]byte("hello, this is not a segment of a log"), 10, 2},
	} {
		if err := os.WriteFile(path, c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		seqs, damages := collect()
		if len(seqs) != c.seqs || damages != c.damages {
			t.Errorf("%s: %v (%d), %d damages", name, seqs, len(seqs), damages)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if seqs, damages := collect(); len(seqs) != 10 || damages != 1 {
		t.Errorf("removed: %v, %d damages", seqs, damages)
	}
}

func TestVerifyWithoutLog(t *testing.T) {
	key, _ := testKey()
	if _, err := Verify(t.TempDir(), key); !errors.Is(err, ErrNoLog) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Verify(filepath.Join(t.TempDir(), "none"), key); !errors.Is(err, ErrNoLog) {
		t.Errorf("no directory: %v", err)
	}
	dir, _ := writeSpool(t, 4, 4)
	rep, err := Verify(dir, key)
	if err != nil || !rep.Intact() || rep.Events != 8 || rep.Checkpoints != 2 || rep.Segments != 2 {
		t.Errorf("%+v %v", rep, err)
	}
	key.Key = bytes.Clone(key.Key)
	key.Key[0] ^= 1
	if rep, err := Verify(dir, key); err != nil || rep.Intact() {
		t.Errorf("with another key: %+v %v", rep, err)
	}
}

// TestRecordedProblems are things that a writer with the key, or a bug, could do.
func TestRecordedProblems(t *testing.T) {
	key, _ := testKey()
	make1 := func(h Header, records ...any) []byte {
		b, _, err := AppendHeader(nil, h)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(records); i += 2 {
			grown, mark := BeginRecord(b, records[i].(RecordKind))
			if b, _, err = SealRecord(append(grown, records[i+1].(string)...), mark); err != nil {
				t.Fatal(err)
			}
		}
		return b
	}
	first := Header{Cause: CauseFirst, Segment: 1, First: 1, Node: "n"}
	damaged, second, later := first, first, first
	damaged.Damaged = true
	second.Cause = CauseRotate
	later.First = 2
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"damage that the agent found": {make1(damaged), "found the log before it"},
		"begins in the middle":        {make1(second), "first segment"},
		"begins with event 2":         {make1(later), "first segment"},
		"seq":                         {make1(first, RecordEvent, `{"v":1,"seq":2,"time":"2026-11-23T06:00:00Z"}`), "should hold event 1"},
		"no seq":                      {make1(first, RecordEvent, `{"v":1}`), "should hold event 1"},
		"no JSON":                     {make1(first, RecordEvent, `{"v":1,"seq":1,"time":`), "JSON"},
		"no time":                     {make1(first, RecordEvent, `{"v":1,"seq":1,"time":"noon"}`), "no time"},
		"carry":                       {make1(first, RecordCarry, `{`), "JSON"},
		"checkpoint":                  {make1(first, RecordCheckpoint, `hello`), "signature"},
		"checkpoint of another place": {make1(first, RecordCheckpoint, string(signed(Checkpoint{Inside: true}))), "another place"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, SegmentName(1)), c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, CheckpointFile), signed(Checkpoint{}), 0o600); err != nil {
			t.Fatal(err)
		}
		rep, err := Verify(dir, key)
		if err != nil || rep.Intact() || !strings.Contains(rep.Wrong.Why, c.want) {
			t.Errorf("%s: %v %v", name, rep.Wrong, err)
		}
	}
}

// FuzzSegment reads anything: no panic, bounded memory, and what it accepts is
// what writing the same records makes.
func FuzzSegment(f *testing.F) {
	b, _ := segmentBytes(f, Position{}, 4)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(append(bytes.Clone(b), make([]byte, 40)...))
	f.Add(append(bytes.Clone(b), 1, 0xff, 0xff, 0xff))
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewSegmentReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		out, _, err := AppendHeader(nil, r.Header())
		if err != nil {
			t.Fatal(err)
		}
		for {
			rec, err := r.Next()
			if err != nil {
				break
			}
			var mark int
			out, mark = BeginRecord(out, rec.Kind)
			if out, _, err = SealRecord(append(out, rec.Payload...), mark); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(b, out) {
			t.Fatal("what was read is not what is written")
		}
		if len(r.buf) > 2*(MaxPayload+recordExtra) {
			t.Fatalf("a buffer of %d bytes", len(r.buf))
		}
	})
}

// FuzzPayload verifies and filters any payload whose hash is right.
func FuzzPayload(f *testing.F) {
	j, err := encode(f, sampleEvent(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(RecordEvent), j)
	f.Add(byte(RecordEvent), []byte(`{"v":1,"seq":1,"time":"2026-11-23T06:00:00Z","kind":"gap","gap":null}`))
	f.Add(byte(RecordCheckpoint), signed(Checkpoint{}))
	f.Add(byte(RecordCarry), j)
	key, _ := testKey()
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		v := &verifier{report: &Report{Key: key}}
		_ = v.record(Record{Kind: RecordKind(kind), Seq: 1, Payload: payload}, Position{})
		filter := Filter{User: "ann@example.com", Text: "select", From: time.Unix(0, 0)}
		_, _, _ = filter.Select(payload)
	})
}

// FuzzCheckpoint parses anything with a key that signs anything: what is accepted
// has one form only.
func FuzzCheckpoint(f *testing.F) {
	_, end := segmentBytes(f, Position{}, 4)
	f.Add(Checkpoint{Origin: "node-a/weir-spool", Position: end, Closed: true}.Text())
	f.Add([]byte("node-a/weir-spool\n1\nAAAA\nsegment 1 offset 2\ntime x\nstate open\n"))
	key, private := testKey()
	f.Fuzz(func(t *testing.T, text []byte) {
		note := append(bytes.Clone(text), FormatSignature(key, ed25519.Sign(private, text))...)
		c, err := ParseCheckpoint(note, key)
		if err == nil && !bytes.Equal(c.Text(), text) {
			t.Fatalf("two forms of one checkpoint:\n%q\n%q", text, c.Text())
		}
		_, _ = ParseCheckpoint(text, key)
		if k, err := ParsePublicKey(string(text)); err == nil && k.String() != strings.TrimSpace(string(text)) {
			t.Fatalf("two forms of one key: %q", text)
		}
	})
}

func TestPublicKey(t *testing.T) {
	key, _ := testKey()
	got, err := ParsePublicKey(key.String() + "\n")
	if err != nil || got.String() != key.String() || !got.Key.Equal(key.Key) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", "a", "a+b+c", strings.Replace(key.String(), "+", "+0", 1), key.String()[1:], key.String() + "AAAA"} {
		if _, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%q was taken for a key", bad)
		}
	}
}

func TestFilter(t *testing.T) {
	ev := sampleEvent(1)
	j, err := encode(t, ev)
	if err != nil {
		t.Fatal(err)
	}
	at := ev.Time
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{From: at, To: at.Add(1)}, true},
		{Filter{From: at.Add(1)}, false},
		{Filter{To: at}, false},
		{Filter{User: "ANN@example.com"}, true},
		{Filter{User: "bot"}, true},
		{Filter{User: "agent-7"}, true},
		{Filter{User: "bob"}, false},
		{Filter{Backend: "orders", Verdict: "allow", Flow: "F1", Kinds: []Kind{FlowOpen, ActionEvent}}, true},
		{Filter{Backend: "order"}, false},
		{Filter{Verdict: "deny"}, false},
		{Filter{Flow: "F2"}, false},
		{Filter{Flow: `"<é`}, false},
		{Filter{Kinds: []Kind{Gap}}, false},
		{Filter{Text: "select"}, true},
		{Filter{Text: "SHOP.ord"}, true},
		{Filter{Text: "developers READ"}, true},
		{Filter{Text: "ann@"}, false},
	} {
		got, ok, err := c.f.Select(j)
		if err != nil || ok != c.want {
			t.Errorf("%+v: %v %v", c.f, ok, err)
		}
		if ok && got.Seq != 1 {
			t.Errorf("%+v", got)
		}
	}
}
