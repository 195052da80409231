package budget

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

const day = 24 * time.Hour

// clock is a node's clock that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

func newClock() *clock { return &clock{at: time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)} }

func open(t *testing.T, file string, c *clock) *Book {
	t.Helper()
	b, err := Open(Config{File: file, Now: c.now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opened is a book that the end of the test closes.
func opened(t *testing.T, c *clock) *Book {
	t.Helper()
	b := open(t, filepath.Join(t.TempDir(), "budgets"), c)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func spend(mask string, tests, limit int) flow.Spend {
	return flow.Spend{Policy: "p", Mask: mask, Column: "s.t.c", Tests: tests, Limit: limit, Per: day}
}

func person(subject string) *flow.Principal { return &flow.Principal{Issuer: "i", Subject: subject} }

// take wants the list to be taken, with so much left of the first.
func take(t *testing.T, b *Book, who *flow.Principal, left int, list ...flow.Spend) {
	t.Helper()
	got, short, err := b.Take(who, list)
	if short >= 0 || err != nil || got[0] != left {
		t.Helper()
		t.Fatalf("left %v, short %d, %v; want %d left", got, short, err, left)
	}
}

// refused wants the spend at short to be too much.
func refused(t *testing.T, b *Book, who *flow.Principal, short int, list ...flow.Spend) {
	t.Helper()
	if left, got, err := b.Take(who, list); got != short || err != nil {
		t.Fatalf("left %v, short %d, %v; want short %d", left, got, err, short)
	}
}

func TestTakeAllOrNothing(t *testing.T) {
	b := opened(t, newClock())
	ann := person("ann")
	take(t, b, ann, 15, spend("cards", 5, 20))
	refused(t, b, ann, 1, spend("cards", 10, 20), spend("cards", 6, 20))
	refused(t, b, ann, 1, spend("cards", 10, 20), spend("mail", 11, 10))
	take(t, b, ann, 0, spend("cards", 10, 20), spend("mail", 10, 10), spend("cards", 5, 20))
	refused(t, b, ann, 0, spend("cards", 1, 20))
	refused(t, b, ann, 0, spend("zip", 1<<40, 20))
	refused(t, b, ann, 0, spend("zip", 1, 0))
	if left, short, _ := b.Look(ann, []flow.Spend{spend("new", 3, 20)}); short != -1 || left[0] != 20 {
		t.Errorf("a look took: %v %d", left, short)
	}
	if left, short, _ := b.Look(ann, []flow.Spend{spend("mail", 1, 10)}); short != 0 || left[0] != 0 {
		t.Errorf("a look finds %v %d", left, short)
	}
	if len(b.counts) != 2 {
		t.Errorf("%d counts are kept, want 2", len(b.counts))
	}
}

// A budget is of one person and one mask of one policy; who acts for a person spends
// theirs. Names that run into each other are different names.
func TestWhose(t *testing.T) {
	b := opened(t, newClock())
	take(t, b, person("ann"), 0, spend("m", 10, 10))
	take(t, b, person("bob"), 0, spend("m", 10, 10))
	take(t, b, &flow.Principal{Issuer: "j", Subject: "ann"}, 0, spend("m", 10, 10))
	other := spend("m", 10, 10)
	other.Policy = "q"
	take(t, b, person("ann"), 0, other)
	take(t, b, nil, 0, spend("m", 10, 10))
	agent := person("ann")
	agent.Kind, agent.Actor = flow.Agent, &flow.Actor{Issuer: "i", Subject: "robot"}
	refused(t, b, agent, 0, spend("m", 1, 10))
	take(t, b, &flow.Principal{Issuer: "ia", Subject: "nn"}, 0, spend("m", 10, 10))
}

// A test is given back after Per: never earlier, and at most a slot later.
func TestWindow(t *testing.T) {
	c := newClock()
	b := opened(t, c)
	ann := person("ann")
	c.add(59 * time.Minute)
	take(t, b, ann, 5, spend("m", 5, 10))
	c.add(12 * time.Hour)
	take(t, b, ann, 0, spend("m", 5, 10))
	c.add(12*time.Hour - 1)
	refused(t, b, ann, 0, spend("m", 1, 10))
	c.add(time.Hour)
	take(t, b, ann, 0, spend("m", 5, 10))
	refused(t, b, ann, 0, spend("m", 1, 10))
	c.add(40 * day)
	take(t, b, ann, 0, spend("m", 10, 10))
}

// In any time as long as Per no more than the limit is taken, whatever the moments.
func TestWindowNeverEarly(t *testing.T) {
	c := newClock()
	b := opened(t, c)
	ann := person("ann")
	const per = 100 * time.Second
	var taken []time.Time
	for i := range 5000 {
		c.add(time.Duration(i*i%7919) * time.Millisecond)
		if _, short, _ := b.Take(ann, []flow.Spend{{Policy: "p", Mask: "m", Tests: 1, Limit: 7, Per: per}}); short < 0 {
			taken = append(taken, c.now())
		}
	}
	if len(taken) < 500 {
		t.Fatalf("only %d were taken", len(taken))
	}
	for i := 7; i < len(taken); i++ {
		if d := taken[i].Sub(taken[i-7]); d < per {
			t.Fatalf("8 tests within %s", d)
		}
	}
}

func TestClockSetBack(t *testing.T) {
	c := newClock()
	b := opened(t, c)
	ann := person("ann")
	take(t, b, ann, 0, spend("m", 10, 10))
	c.add(-3 * 365 * day)
	refused(t, b, ann, 0, spend("m", 1, 10))
	c.add(23 * time.Hour)
	refused(t, b, ann, 0, spend("m", 1, 10))
	c.add(2 * time.Hour) // and it is not stuck until the old time comes again
	take(t, b, ann, 0, spend("m", 10, 10))
}

func TestRestart(t *testing.T) {
	c, file := newClock(), filepath.Join(t.TempDir(), "budgets")
	ann := person("ann")
	b := open(t, file, c)
	take(t, b, ann, 3, spend("m", 7, 10))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st, err)
	}
	if data, _ := os.ReadFile(file); strings.Contains(string(data), "ann") || strings.Contains(string(data), `"m"`) {
		t.Errorf("the file names people or masks: %s", data)
	}

	c.add(-time.Hour) // set back while nobody looked
	b = open(t, file, c)
	refused(t, b, ann, 0, spend("m", 4, 10))
	take(t, b, ann, 0, spend("m", 3, 10))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	c.add(25 * time.Hour)
	b = open(t, file, c)
	take(t, b, ann, 0, spend("m", 10, 10))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	list, _ := filepath.Glob(file + "*")
	if len(list) != 1 {
		t.Errorf("files are left: %v", list)
	}
}

// What was spent is in the file without a Close, as after kill -9.
func TestCrash(t *testing.T) {
	c, file := newClock(), filepath.Join(t.TempDir(), "budgets")
	b := open(t, file, c)
	take(t, b, person("ann"), 3, spend("m", 7, 10))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is written")
		}
	}
	after := open(t, file, c)
	refused(t, after, person("ann"), 0, spend("m", 4, 10))
	if err := errors.Join(after.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedFileIsNotIgnored(t *testing.T) {
	file := filepath.Join(t.TempDir(), "budgets")
	for _, text := range []string{"", "{", `{"v":2}`, `{"v":1,"counts":[{"key":"00"}]}`, `{"v":1,"clock":-1}`,
		`{"v":1,"counts":[{"key":"00000000000000000000000000000000","per":1,"newest":1,"counts":[1,2]}]}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{File: file, Now: time.Now}); err == nil || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A file that cannot be written is said, and written when it can be.
func TestUnwritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kv")
	c := newClock()
	b := open(t, filepath.Join(dir, "budgets"), c)
	take(t, b, person("ann"), 3, spend("m", 7, 10))
	if err := b.save(); err == nil {
		t.Fatal("it is written where no folder is")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, filepath.Join(dir, "budgets"), c)
	refused(t, b, person("ann"), 0, spend("m", 4, 10))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// Nobody pushes another's count out; counts of nothing make room.
func TestFull(t *testing.T) {
	c := newClock()
	b := opened(t, c)
	b.most = 3
	for _, s := range []string{"a", "b", "c"} {
		take(t, b, person(s), 0, spend("m", 10, 10))
	}
	if _, short, err := b.Take(person("d"), []flow.Spend{spend("m", 1, 10)}); short != 0 || !errors.Is(err, ErrFull) {
		t.Fatalf("%d %v", short, err)
	}
	refused(t, b, person("a"), 0, spend("m", 1, 10))
	c.add(26 * time.Hour)
	take(t, b, person("d"), 0, spend("m", 10, 10))
	take(t, b, person("a"), 0, spend("m", 10, 10))
}

// A policy that changes the time of a budget gives nothing back.
func TestPerChanges(t *testing.T) {
	c := newClock()
	b := opened(t, c)
	ann := person("ann")
	take(t, b, ann, 0, spend("m", 10, 10))
	hourly := spend("m", 1, 10)
	hourly.Per = time.Hour
	refused(t, b, ann, 0, hourly)
	refused(t, b, ann, 0, spend("m", 1, 10))
	c.add(23 * time.Hour)
	refused(t, b, ann, 0, spend("m", 1, 10))
}

// Many at once take no more than there is.
func TestConcurrent(t *testing.T) {
	b := opened(t, newClock())
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, short, _ := b.Take(person("ann"), []flow.Spend{spend("m", 3, 100)}); short < 0 {
					mu.Lock()
					taken += 3
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if taken != 99 {
		t.Errorf("%d were taken of 100, three at a time", taken)
	}
}

func BenchmarkTake(bb *testing.B) {
	b, err := Open(Config{File: filepath.Join(bb.TempDir(), "budgets"), Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		bb.Fatal(err)
	}
	defer b.Close()
	list, who := []flow.Spend{spend("m", 1, 1<<30)}, person("ann")
	bb.ReportAllocs()
	for bb.Loop() {
		if _, short, _ := b.Take(who, list); short >= 0 {
			bb.Fatal("short")
		}
	}
}
