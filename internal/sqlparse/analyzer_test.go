package sqlparse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

func accesses(list []*sqlmeta.Statement) string {
	var out []string
	for _, st := range list {
		for _, a := range st.Accesses {
			out = append(out, strings.TrimSpace(string(a.Verb)+" "+a.Resource))
		}
	}
	return strings.Join(out, ", ")
}

func TestAnalyzer(t *testing.T) {
	a := newAnalyzer(t)
	ctx := context.Background()
	first, err := a.Analyze(ctx, pointSelect, benchSession, nil)
	if err != nil || accesses(first) != "select public.pgbench_accounts" {
		t.Fatalf("%s %v", accesses(first), err)
	}
	again, err := a.Analyze(ctx, pointSelect, benchSession, nil)
	if err != nil || again[0] != first[0] {
		t.Error("the second time was no hit")
	}
	other := benchSession
	other.SearchPath = []string{"shop"}
	if list, _ := a.Analyze(ctx, pointSelect, other, nil); accesses(list) != "select shop.pgbench_accounts" {
		t.Errorf("with another path: %s", accesses(list))
	}
	if list, _ := a.Analyze(ctx, pointSelect+" ", benchSession, nil); list[0] == first[0] {
		t.Error("other bytes were a hit")
	}
	catalog := sqlmeta.NewCatalog(1, []string{"shop"}, []*sqlmeta.Relation{{OID: 20000, Schema: "shop", Name: "pgbench_accounts"}}, nil)
	other.SearchPath = []string{"public", "shop"}
	if list, _ := a.Analyze(ctx, pointSelect, other, catalog); accesses(list) != "select shop.pgbench_accounts" {
		t.Errorf("with a catalogue: %s", accesses(list))
	}
	if list, err := a.Analyze(ctx, " ; ", benchSession, nil); err != nil || len(list) != 0 {
		t.Errorf("empty: %v %v", list, err)
	}
}

// TestUnreadable: whatever cannot be read is one unknown statement and an error.
func TestUnreadable(t *testing.T) {
	a := newAnalyzer(t)
	for name, c := range map[string]struct {
		sql  string
		want error
	}{
		"syntax":  {"selec 1", nil},
		"long":    {strings.Repeat(" ", sqlmeta.MaxText), ErrTooLong},
		"deep":    {"select " + strings.Repeat("(", 100000), ErrTooDeep},
		"plus":    {"select 1" + strings.Repeat("+1", 30000), ErrTooDeep},
		"NUL":     {"select 1\x00", ErrNotText},
		"bytes":   {"select '\xff'", ErrNotText},
		"large":   {"select " + strings.Repeat("a,", 150000) + "a", ErrTooLarge},
		"misread": {"select 'a' --\n'b'", ErrMisread},
	} {
		for range 2 { // and when it comes from the cache
			list, err := a.Analyze(context.Background(), c.sql, benchSession, nil)
			var syntax *SyntaxError
			if errors.As(err, &syntax) {
				if c.want != nil || list[0].Cursor != 1 || list[0].Problem != syntax.Message {
					t.Errorf("%s: %+v", name, list[0])
				}
			} else if c.want == nil || !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
			expectUnknown(t, list, c.sql)
		}
	}
	// Nobody waits any more: a request that has no child yet is given up.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var taken []*process
	for range cap(a.Pool.idle) {
		taken = append(taken, <-a.Pool.idle)
	}
	list, err := a.Analyze(ctx, "select 'new'", benchSession, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	expectUnknown(t, list, "select 'new'")
	for _, child := range taken {
		a.Pool.idle <- child
	}
	if list, err := a.Analyze(context.Background(), "select 'new'", benchSession, nil); err != nil || accesses(list) != "connect database:shop" {
		t.Errorf("%s %v", accesses(list), err)
	}
}

func expectUnknown(t *testing.T, list []*sqlmeta.Statement, sql string) {
	t.Helper()
	if len(list) != 1 || list[0].Text != sql || list[0].Problem == "" || accesses(list) != string(flow.Unknown) || !list[0].Opaque {
		t.Errorf("%.20q: %s", sql, accesses(list))
	}
}

// TestKillerIsRemembered: a text that a child died of is not tried again at once.
func TestKillerIsRemembered(t *testing.T) {
	a := newAnalyzer(t)
	k := keyOf("select 'killer'", &benchSession, nil)
	e := &entry{key: k, statements: []*sqlmeta.Statement{sqlmeta.Unreadable("x", "y", 0)}, err: ErrParserDied}
	if !keep(e) || e.expires.IsZero() {
		t.Fatal("not kept, or for ever")
	}
	a.Cache.put(e, "select 'killer'")
	if _, err := a.Analyze(context.Background(), "select 'killer'", benchSession, nil); !errors.Is(err, ErrParserDied) {
		t.Errorf("%v", err)
	}
	e.expires = time.Now().Add(-time.Second)
	if _, err := a.Analyze(context.Background(), "select 'killer'", benchSession, nil); err != nil {
		t.Errorf("after the time: %v", err)
	}
	for _, err := range []error{ErrBusy, ErrClosed, context.Canceled} {
		if keep(&entry{err: err}) {
			t.Errorf("%v is kept", err)
		}
	}
}

func TestLookupsAreNotCached(t *testing.T) {
	a := newAnalyzer(t)
	ctx := context.Background()
	s := benchSession
	list, _ := a.Analyze(ctx, "execute p", s, nil)
	if accesses(list) != "unknown" {
		t.Errorf("unknown name: %s", accesses(list))
	}
	prepared, _ := a.Analyze(ctx, "prepare p as select * from orders", s, nil)
	inner := prepared[0].Effects.Inner
	s.Prepared = func(name string) *sqlmeta.Statement {
		if name == "p" {
			return inner
		}
		return nil
	}
	if list, _ := a.Analyze(ctx, "execute p", s, nil); accesses(list) != "select public.orders" {
		t.Errorf("known name: %s", accesses(list))
	}
	// The server reads it anew under another path; so must we.
	s.SearchPath = []string{"shop"}
	if list, _ := a.Analyze(ctx, "execute p", s, nil); accesses(list) != "select shop.orders" {
		t.Errorf("under another path: %s", accesses(list))
	}
	// So is a statement that came by a Parse message.
	parsed, _ := a.Analyze(ctx, "delete from orders", benchSession, nil)
	s.Prepared = func(string) *sqlmeta.Statement { return parsed[0] }
	if list, _ := a.Analyze(ctx, "execute q", s, nil); accesses(list) != "delete shop.orders" {
		t.Errorf("of a Parse message: %s", accesses(list))
	}
	// Names that execute each other come to an end.
	loop, _ := a.Analyze(ctx, "execute q", benchSession, nil)
	copied := *loop[0]
	copied.Problem = ""
	s.Prepared = func(string) *sqlmeta.Statement { return &copied }
	if list, _ := a.Analyze(ctx, "execute q", s, nil); accesses(list) != "unknown" {
		t.Errorf("a loop: %s", accesses(list))
	}
}

func TestTemporaryNamesAreNotCached(t *testing.T) {
	a := newAnalyzer(t)
	ctx := context.Background()
	s := benchSession
	a.Analyze(ctx, "select * from scratch", s, nil)
	s.Temp = map[string]struct{}{"scratch": {}}
	if list, _ := a.Analyze(ctx, "select * from scratch", s, nil); accesses(list) != "select pg_temp.scratch" {
		t.Errorf("with a temporary relation: %s", accesses(list))
	}
	s.Temp = nil
	if list, _ := a.Analyze(ctx, "select * from scratch", s, nil); accesses(list) != "select public.scratch" {
		t.Errorf("and without: %s", accesses(list))
	}
}

func TestCacheIsBounded(t *testing.T) {
	const size = 1 << 20
	c := NewCache(size)
	key := func(i int) cacheKey { return keyOf(fmt.Sprint(i), &benchSession, nil) }
	statements := []*sqlmeta.Statement{{}}
	for i := range 10000 {
		c.put(&entry{key: key(i), statements: statements}, "select 1")
	}
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		total += s.cost
		n := 0
		for e := s.newest; e != nil; e = e.older {
			n++
		}
		if n != len(s.entries) {
			t.Errorf("list of %d, map of %d", n, len(s.entries))
		}
	}
	if total > size || total < size*9/10 {
		t.Errorf("cost %d", total)
	}
	if _, ok := c.get(key(9999)); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := c.get(key(0)); ok {
		t.Error("the oldest is there")
	}
	huge := strings.Repeat("x", size)
	c.put(&entry{key: key(-1), statements: statements}, huge)
	if _, ok := c.get(key(-1)); ok {
		t.Error("one text took more than its share")
	}
	// What is used stays.
	used := key(1 << 20)
	c.put(&entry{key: used, statements: statements}, "x")
	for i := range 5000 {
		if _, ok := c.get(used); !ok {
			t.Fatalf("gone after %d", i)
		}
		c.put(&entry{key: key(i), statements: statements}, "x")
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				c.put(&entry{key: key(g*i + i), statements: statements}, "x")
				c.get(key(i))
			}
		})
	}
	wg.Wait()
	if n := c.Len(); n == 0 || n > size/statementCost {
		t.Errorf("%d entries", n)
	}
}

// TestKeyOf: short and long texts, and a text that looks like a session.
func TestKeyOf(t *testing.T) {
	long := strings.Repeat("x", 5000)
	seen := make(map[cacheKey]string)
	other := benchSession
	other.Database = "other"
	for _, s := range []*sqlmeta.Session{&benchSession, &other} {
		for _, sql := range []string{"", "a", "ab", long, long + "x", string(s.AppendKey([]byte("k"), nil))} {
			k := keyOf(sql, s, nil)
			if _, ok := seen[k]; ok {
				t.Errorf("%.20q has the key of %.20q", sql, seen[k])
			}
			seen[k] = sql
		}
	}
}
