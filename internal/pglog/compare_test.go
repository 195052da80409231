package pglog

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// The parsers' own tests need no server; test/compare has a real one.

var begin = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }

// fakeLog is an audit log in memory.
type fakeLog struct {
	events []auditlog.Event
	next   int
}

func (l *fakeLog) Next() (auditlog.LogEvent, error) {
	if l.next == len(l.events) {
		return auditlog.LogEvent{}, io.EOF
	}
	ev := &l.events[l.next]
	l.next++
	ev.V, ev.Seq, ev.Backend = 1, uint64(l.next), "shop"
	b, err := json.Marshal(ev)
	return auditlog.LogEvent{Seq: ev.Seq, Payload: b}, err
}

func (l *fakeLog) Skip() {}

func (l *fakeLog) open(ms int, flow string, pid uint32) *fakeLog {
	l.events = append(l.events, auditlog.Event{Time: at(ms), Kind: auditlog.FlowOpen, Flow: flow, Upstream: &auditlog.Upstream{Address: "x:1", PID: pid}})
	return l
}

func (l *fakeLog) close(ms int, flow string) *fakeLog {
	l.events = append(l.events, auditlog.Event{Time: at(ms), Kind: auditlog.FlowClose, Flow: flow})
	return l
}

func (l *fakeLog) action(ms int, flow string, texts ...string) *fakeLog {
	for _, text := range texts {
		id := fmt.Sprint("a", len(l.events))
		l.events = append(l.events, auditlog.Event{Time: at(ms), Kind: auditlog.ActionEvent, Flow: flow, Verdict: "allow", Action: &auditlog.Action{ID: id, Phase: auditlog.PhaseIntent, Text: text}})
	}
	return l
}

func (l *fakeLog) deny(ms int, flow, text string) *fakeLog {
	l.action(ms, flow, text)
	l.events[len(l.events)-1].Result = &auditlog.Result{Status: auditlog.StatusDenied}
	return l
}

func (l *fakeLog) outcome(ms int, flow, id, status string) *fakeLog {
	l.events = append(l.events, auditlog.Event{Time: at(ms), Kind: auditlog.ActionEvent, Flow: flow, Action: &auditlog.Action{ID: id, Phase: auditlog.PhaseOutcome}, Result: &auditlog.Result{Status: status}})
	return l
}

// fakeServer is a server's log in memory.
type fakeServer []Entry

func (s *fakeServer) Next() (*Entry, error) {
	if len(*s) == 0 {
		return nil, io.EOF
	}
	e := (*s)[0]
	*s = (*s)[1:]
	return &e, nil
}

func did(ms int, pid uint32, text string) Entry {
	return Entry{Time: at(ms), PID: pid, Text: text, User: "app"}
}

func compare(t *testing.T, l *fakeLog, entries ...Entry) *Result {
	t.Helper()
	server := fakeServer(entries)
	r, err := Compare(t.Context(), Config{Log: l, Server: &server, Backend: "shop", Skew: time.Second,
		Own: func(e *Entry) Kind {
			if e.Text == "look-up" {
				return Lookup
			}
			return NotOwn
		}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompareFinds(t *testing.T) {
	own := did(6, 9, "look-up")
	own.Application = OwnApplication
	forged := did(7, 9, "SELECT secret")
	forged.Application = OwnApplication
	named := did(30, 8, "SELECT 1")
	named.Application = "weir:F1 psql" // the process id is another's
	for _, c := range []struct {
		name    string
		log     *fakeLog
		entries []Entry
		want    string
	}{
		{"all of it", new(fakeLog).open(0, "F1", 7).action(5, "F1", "SELECT 1").action(8, "F1", "BEGIN", "SELECT 2").close(20, "F1"),
			[]Entry{did(6, 7, "SELECT 1; "), did(9, 7, "/* x */ BEGIN ;SELECT 2 -- y")}, "matched 2/3, outside 0, unrecorded 0, denied 0, weir only 0"},
		{"a record is lost", new(fakeLog).open(0, "F1", 7).action(5, "F1", "SELECT 1"),
			[]Entry{did(6, 7, "SELECT 1"), did(9, 7, "SELECT 2")}, "matched 1/1, outside 0, unrecorded 1, denied 0, weir only 0"},
		{"one of two alike is lost", new(fakeLog).open(0, "F1", 7).action(5, "F1", "SELECT 1"),
			[]Entry{did(6, 7, "SELECT 1"), did(9, 7, "SELECT 1")}, "matched 1/1, outside 0, unrecorded 1, denied 0, weir only 0"},
		{"a part of a string is lost", new(fakeLog).open(0, "F1", 7).action(5, "F1", "SELECT 1"),
			[]Entry{did(6, 7, "SELECT 1; DROP TABLE x")}, "matched 0/0, outside 0, unrecorded 1, denied 0, weir only 0"},
		{"a denied one ran", new(fakeLog).open(0, "F1", 7).deny(5, "F1", "DROP TABLE x"),
			[]Entry{did(6, 7, "DROP TABLE x")}, "matched 0/0, outside 0, unrecorded 0, denied 1, weir only 0"},
		{"denied ones do not run", new(fakeLog).open(0, "F1", 7).deny(5, "F1", "DROP TABLE x").action(6, "F1", "SELECT 1"),
			[]Entry{did(6, 7, "SELECT 1")}, "matched 1/1, outside 0, unrecorded 0, denied 0, weir only 0"},
		{"past Weir", new(fakeLog).open(0, "F1", 7).action(5, "F1", "SELECT 1"),
			[]Entry{did(6, 7, "SELECT 1"), did(7, 8, "SELECT 1")}, "matched 1/1, outside 1, unrecorded 0, denied 0, weir only 0"},
		{"under the name of a flow", new(fakeLog).open(0, "F1", 7).action(5, "F1", "SELECT 1"),
			[]Entry{named}, "matched 0/0, outside 1, unrecorded 0, denied 0, weir only 0"},
		{"the process id is used again", new(fakeLog).open(0, "F1", 7).close(10, "F1").open(9000, "F2", 7).action(9001, "F2", "SELECT 2").close(9010, "F2"),
			[]Entry{did(5000, 7, "SELECT 1"), did(9002, 7, "SELECT 2")}, "matched 1/1, outside 1, unrecorded 0, denied 0, weir only 0"},
		{"the server's clock is behind", new(fakeLog).open(800, "F1", 7).action(900, "F1", "SELECT 1", "SELECT 2"),
			[]Entry{did(10, 7, "SELECT 1; SELECT 2")}, "matched 1/2, outside 0, unrecorded 0, denied 0, weir only 0"},
		{"it is behind by more than was said", new(fakeLog).open(1800, "F1", 7).action(1900, "F1", "SELECT 1"),
			[]Entry{did(10, 7, "SELECT 1")}, "matched 0/0, outside 1, unrecorded 0, denied 0, weir only 0"},
		{"the server refused it", new(fakeLog).open(0, "F1", 7).action(5, "F1", "SELECT 1").outcome(6, "F1", "a1", "error").action(7, "F1", "SELECT 2"),
			[]Entry{did(1, 8, "x"), did(8, 7, "SELECT 2")}, "matched 1/1, outside 1, unrecorded 0, denied 0, weir only 1 error"},
		{"Weir's own, and who gives itself the name", new(fakeLog), []Entry{own, forged}, "matched 0/0, outside 1, unrecorded 0, denied 0, weir only 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := compare(t, c.log, c.entries...)
			got := fmt.Sprintf("matched %d/%d, outside %d, unrecorded %d, denied %d, weir only %d", r.Matched, r.Actions, r.ServerOnly.Outside, r.ServerOnly.Unrecorded, r.ServerOnly.Denied, r.WeirOnly.Actions)
			for status := range r.WeirOnly.ByStatus {
				got += " " + status
			}
			if got != c.want || r.Complete() != (r.ServerOnly.Statements == 0) || r.ServerOnly.Statements != r.ServerOnly.Outside+r.ServerOnly.Unrecorded+r.ServerOnly.Denied {
				t.Errorf("%s\nwant %s\n%+v", got, c.want, r)
			}
		})
	}
}

// TestCompareIsBounded: actions that the server never logs do not pile up.
func TestCompareIsBounded(t *testing.T) {
	l := new(fakeLog).open(0, "F1", 7)
	var entries []Entry
	const n = 20000
	for i := range n {
		l.action(i, "F1", "fast", fmt.Sprint("slow ", i))
		entries = append(entries, did(i, 7, fmt.Sprint("slow ", i)))
	}
	r := compare(t, l, entries...)
	if r.Matched != n || r.WeirOnly.Actions != n || !r.Complete() || len(r.WeirOnly.Examples) != maxExamples {
		t.Errorf("matched %d, weir only %d", r.Matched, r.WeirOnly.Actions)
	}
}

func source(t *testing.T, name, text string) *Source {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Source{Files: []string{file}, Prefix: "%m [%p] %q%u@%d/%a "}
	t.Cleanup(s.Close)
	return s
}

func all(t *testing.T, s *Source) (out []string) {
	t.Helper()
	for {
		e, err := s.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %d %s %s %s %s:%s %q", e.Time.UTC().Format("15:04:05.000"), e.PID, e.User, e.Database, e.Application, e.Client, e.Port, e.Text))
	}
}

func record(severity, message, application string) string {
	return `2026-11-26 10:00:00.123 UTC,"app","shop",4711,"10.0.0.7:5000",65a.1,2,"SELECT",2026-11-26 09:59:59 UTC,3/4,0,` + severity + `,00000,"` +
		strings.ReplaceAll(message, `"`, `""`) + `",,,,,,,,,"` + application + `","client backend",,0` + "\n"
}

func TestFormats(t *testing.T) {
	want := []string{
		`10:00:00.123 4711 app shop psql 10.0.0.7:5000 "SELECT \"a\",\n1"`,
		`10:00:00.123 4711 app shop psql 10.0.0.7:5000 "SELECT $1"`,
		`10:00:00.123 4711 app shop psql 10.0.0.7:5000 "FETCH all"`,
		`10:00:00.123 4711 app shop psql 10.0.0.7:5000 "slow"`,
	}
	messages := []string{"statement: SELECT \"a\",\n1", "duration: 1.5 ms", "execute s/p: SELECT $1", "duration: 3.1 ms  parse s: SELECT $1", "duration: 2 ms  bind s: SELECT $1",
		"execute fetch from s/p: FETCH all", "duration: 12.5 ms  statement: slow", "disconnection: session time: 0:00:00"}
	var c, j, l strings.Builder
	for _, m := range messages {
		c.WriteString(record("LOG", m, "psql"))
		b, _ := json.Marshal(m)
		fmt.Fprintf(&j, `{"timestamp":"2026-11-26 10:00:00.123 UTC","user":"app","dbname":"shop","pid":4711,"remote_host":"10.0.0.7","remote_port":5000,"session_start":"2026-11-26 09:59:59 UTC","error_severity":"LOG","message":%s,"application_name":"psql"}`+"\n", b)
		fmt.Fprintf(&l, "2026-11-26 10:00:00.123 UTC [4711] app@shop/psql 10.0.0.7(5000) LOG:  %s\n", strings.ReplaceAll(m, "\n", "\n\t"))
	}
	c.WriteString(record("ERROR", "statement: not a statement", "psql"))
	l.WriteString("2026-11-26 10:00:00.123 UTC [1] LOG:  checkpoint starting: time\n")
	for name, text := range map[string]string{"a.csv": c.String(), "a.json": j.String(), "a.log": l.String()} {
		s := source(t, name, text)
		if name == "a.log" {
			s.Prefix = "%m [%p] %q%u@%d/%a %r "
		}
		got := all(t, s)
		if fmt.Sprint(got) != fmt.Sprint(want) || s.Counts().Unreadable+s.Counts().Foreign != 0 {
			t.Errorf("%s: %s\n%+v", name, strings.Join(got, "\n"), s.Counts())
		}
	}
}

func TestWhatCannotBeReadIsCounted(t *testing.T) {
	good := record("LOG", "statement: SELECT 1", "psql")
	for name, text := range map[string]string{
		"half.csv":  "2026-11-26 10:00:00.123 UTC,\"app\",\"sh\n" + good, // an open quote swallows what follows
		"short.csv": "a,b\n" + good,
		"zone.csv":  strings.Replace(good, "UTC", "CET", 1),
		"bad.json":  "{}\n{\n{}\n",
		"pid.csv":   strings.Replace(good, ",4711,", ",4711111111111,", 1),
		"long.csv":  strings.Replace(good, "SELECT 1", strings.Repeat("y", maxRecord), 1) + good,
	} {
		s := source(t, name, text)
		all(t, s)
		if n := s.Counts(); n.Unreadable == 0 || n.FirstUnreadable == "" {
			t.Errorf("%s: %+v", name, n)
		}
		if name == "long.csv" && s.Counts().Statements != 1 {
			t.Errorf("what follows a record that is too long is lost: %+v", s.Counts())
		}
	}
	s := source(t, "zone.csv", strings.ReplaceAll(good, "UTC", "CET"))
	s.Zone = time.FixedZone("CET", 3600)
	if got := all(t, s); len(got) != 1 || !strings.HasPrefix(got[0], "09:00:00.123") {
		t.Errorf("%q", got)
	}
	s = source(t, "a.csv", good+good[:40]) // the server is writing
	if got := all(t, s); len(got) != 1 || s.Counts().Unreadable != 0 || s.Counts().Unfinished != 40 {
		t.Errorf("%q %+v", got, s.Counts())
	}
	for _, prefix := range []string{"", "%m [%p] ", "%p %a ", "%m %a", "%m [%p] %a %", "%m [%p] %a %Z "} {
		s := source(t, "a.log", "x\n")
		s.Prefix = prefix
		if _, err := s.Next(); err == nil || err == io.EOF {
			t.Errorf("log_line_prefix %q is taken: %v", prefix, err)
		}
	}
}

// FuzzSource: hostile logs neither hang nor break the reader, and no record is lost
// without being counted.
func FuzzSource(f *testing.F) {
	f.Add("a.csv", record("LOG", "statement: SELECT 1", "psql"))
	f.Add("a.json", `{"timestamp":"2026-11-26 10:00:00.123 UTC","pid":1,"error_severity":"LOG","message":"execute x: y"}`+"\n")
	f.Add("a.log", "2026-11-26 10:00:00.123 UTC [4711] app@shop/psql LOG:  statement: a\n\tb\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		name = "f" + filepath.Ext(filepath.Base("x"+strings.Map(func(r rune) rune {
			if r < 'a' || r > 'z' {
				return '.'
			}
			return r
		}, name)))
		s := source(t, name, text)
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
		if n := s.Counts(); n.Statements > n.Lines {
			t.Errorf("%+v", n)
		}
	})
}
