package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// TestSubscribe has a subscriber with a tiny buffer, one with a large one and one
// that starts in the past, under load and over rotations and failures: each gets
// every event once, in order.
func TestSubscribe(t *testing.T) {
	const appenders, rounds = 8, 300
	dir := t.TempDir()
	fs := &faultFS{FS: audit.RealFS(), op: "write", file: "segment", when: after}
	s := open(t, audit.Config{StateDir: dir, FS: fs, SegmentBytes: 32 << 10})
	add(t, s, flowOpen("EARLY"), flowOpen("EARLY2"))
	start := auditlog.Position{}
	subs := map[string]*audit.Subscription{
		"tiny": s.Subscribe(nil, 1), "large": s.Subscribe(nil, 1<<20), "past": s.Subscribe(&start, 64),
	}
	got := make(map[string]*[]audit.Item)
	var readers sync.WaitGroup
	for name, sub := range subs {
		list := new([]audit.Item)
		got[name] = list
		readers.Go(func() {
			for {
				item, err := sub.Next(context.Background())
				if errors.Is(err, audit.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				*list = append(*list, item)
			}
		})
	}
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			for i := range rounds {
				id := fmt.Sprintf("F%d.%d", a, i)
				for s.Append(context.Background(), false, flowOpen(id), flowClose(id)) != nil {
					s.Attend() // as the keeper would
				}
				if a == 0 && i%100 == 50 {
					fs.arm(true)
					_ = s.Append(context.Background(), false, flowOpen("REFUSED"))
					fs.arm(false)
				}
			}
		})
	}
	wg.Wait()
	closeSpool(t, s)
	readers.Wait()
	wantIntact(t, dir)
	all := readAll(t, dir)
	for name, list := range got {
		want := all
		if name != "past" {
			want = all[2:]
		}
		if len(*list) != len(want) {
			t.Errorf("%s got %d of %d events", name, len(*list), len(want))
			continue
		}
		for i, item := range *list {
			var ev auditlog.Event
			if err := json.Unmarshal(item.Raw, &ev); err != nil || ev.Seq != want[i].Seq || item.Event.Seq != ev.Seq || brief(&ev) != brief(want[i]) {
				t.Fatalf("%s: item %d is %s (%v), want %s", name, i, item.Raw, err, brief(want[i]))
			}
		}
	}
	// A position that an item gave is a place to go on from.
	past := *got["past"]
	mid := past[len(past)/2]
	r, err := auditlog.OpenDirAt(auditlog.SpoolDir(dir), mid.End)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind == auditlog.RecordEvent {
			if rec.Seq != mid.Event.Seq+1 {
				t.Errorf("behind event %d comes %d", mid.Event.Seq, rec.Seq)
			}
			break
		}
	}
}

func TestSubscribeEnds(t *testing.T) {
	s := open(t, audit.Config{StateDir: t.TempDir()})
	sub := s.Subscribe(nil, 4)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := sub.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	add(t, s, flowOpen("F1"))
	if item, err := sub.Next(context.Background()); err != nil || item.Event.Flow != "F1" {
		t.Errorf("%v %v", item, err)
	}
	sub.Close()
	add(t, s, flowOpen("F2"))
	if _, err := sub.Next(context.Background()); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("a closed subscription: %v", err)
	}
	closeSpool(t, s)
	if _, err := s.Subscribe(nil, 1).Next(context.Background()); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("a subscription to a closed spool: %v", err)
	}
}
