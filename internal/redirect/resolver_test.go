package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// names is a resolver's answer book.
type names map[string][]string

func (n names) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range n[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, errors.New("no such host")
	}
	return out, nil
}

func TestResolverKeepsWhatItSaw(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	book := names{"db": {"192.0.2.1", "2001:db8::1"}, "other": {"192.0.2.1", "192.0.2.9"}}
	r, err := NewResolver(ResolverConfig{
		Static: []Destination{{Prefix: prefix("192.0.2.9/32"), Port: 5432, Backend: 0}},
		Names:  []Name{{"db", 5432, 1}, {"other", 5432, 2}, {"db", 6432, 3}},
		Keep:   time.Hour, Lookup: book.lookup, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	resolve := func(wantErr bool, want ...string) {
		t.Helper()
		got, err := r.Resolve(t.Context())
		if (err != nil) != wantErr {
			t.Errorf("error %v", err)
		}
		var all []string
		for _, d := range got {
			all = append(all, fmt.Sprintf("%s:%d=%d", d.Prefix, d.Port, d.Backend))
		}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	static := "192.0.2.9/32:5432=0" // written as an address: wins over a name
	resolve(false, static, "192.0.2.1/32:5432=1", "2001:db8::1/128:5432=1", "192.0.2.1/32:6432=3", "2001:db8::1/128:6432=3")

	now = now.Add(50 * time.Minute)
	book["db"] = []string{"::ffff:192.0.2.2"}
	book["other"] = nil
	resolve(true, static, "192.0.2.1/32:5432=1", "192.0.2.2/32:5432=1", "2001:db8::1/128:5432=1",
		"192.0.2.1/32:6432=3", "192.0.2.2/32:6432=3", "2001:db8::1/128:6432=3")

	now = now.Add(20 * time.Minute) // the first answer is older than Keep now, the name that fails keeps all
	resolve(true, static, "192.0.2.2/32:5432=1", "192.0.2.1/32:5432=2", "192.0.2.2/32:6432=3")
}

func TestResolverRefusesUnusableNames(t *testing.T) {
	for _, n := range []Name{{"", 1, 0}, {"db", 0, 0}, {"db", 1, -1}} {
		if _, err := NewResolver(ResolverConfig{Names: []Name{n}, Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%+v was taken", n)
		}
	}
}

func TestResolverBoundsAnAnswer(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.0")
	var many []netip.Addr
	for range maxAddresses + 5 {
		addr = addr.Next()
		many = append(many, addr)
	}
	r, err := NewResolver(ResolverConfig{
		Names: []Name{{"db", 5432, 1}}, Log: slog.New(slog.DiscardHandler),
		Lookup: func(context.Context, string) ([]netip.Addr, error) { return many, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Resolve(t.Context())
	if err == nil || len(got) != maxAddresses {
		t.Errorf("%d destinations, error %v", len(got), err)
	}
}

func TestResolverRunsUntilItsContextEnds(t *testing.T) {
	book := names{"localhost": {"127.0.0.1"}}
	r, err := NewResolver(ResolverConfig{
		Names: []Name{{"localhost", 5432, 1}}, Interval: time.Millisecond, Lookup: book.lookup, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	r.Run(ctx, func(d []Destination) error { // returns when cancelled
		if len(d) != 1 {
			t.Errorf("%v", d)
		}
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if n < 3 {
		t.Errorf("applied %d times", n)
	}
}
