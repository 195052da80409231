// Package anchor takes what the sealed log says out of the node, so that who has
// root on it cannot write its history anew: witnesses cosign the tree heads (C2SP
// tlog-witness.md), an authority stamps their time (RFC 3161), and an object store
// keeps copies that nobody can remove before their time (S3 Object Lock). Each of
// the three is optional.
//
// It works behind the sealed log and reads its files only. Whoever is away is
// asked again later; nothing waits for them. It owns STATE_DIR/log/anchors, where
// each line is a head as others have signed it, and STATE_DIR/log/uploaded.
package anchor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/audit"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// Defaults and bounds.
const (
	// DefaultEvery is how often a new head is shown to the witnesses, and new tiles
	// are copied.
	DefaultEvery = time.Minute
	// DefaultStampEvery is how often a head is stamped.
	DefaultStampEvery = time.Hour
	// timeout bounds one exchange with one of them.
	timeout = 15 * time.Second
	// maxAnswer bounds what one of them answers, bytes.
	maxAnswer = 64 << 10
)

// Config is what an Anchor is made of. StateDir and Key are required.
type Config struct {
	StateDir   string
	Key        auditlog.PublicKey
	Witnesses  []Witness
	Stamper    *Stamper
	Store      *Store
	Every      time.Duration // default: DefaultEvery
	StampEvery time.Duration // default: DefaultStampEvery
	// Problem is told what is wrong, and "" when nothing is any more.
	Problem func(text string)
	Log     *slog.Logger
}

// Anchor works until Close.
type Anchor struct {
	Config
	cancel  context.CancelFunc
	done    chan struct{}
	once    sync.Once
	problem string

	// Owned by the goroutine of run.
	seen    map[string]uint64 // size of the head that a witness has signed last
	last    uint64            // size of the head that was kept last
	stamped time.Time
}

// Open starts it.
func Open(c Config) (*Anchor, error) {
	if c.StateDir == "" || c.Key.Key == nil {
		return nil, errors.New("anchor: a state directory and the log's key are needed")
	}
	if c.Every <= 0 {
		c.Every = DefaultEvery
	}
	if c.StampEvery <= 0 {
		c.StampEvery = DefaultStampEvery
	}
	if c.Problem == nil {
		c.Problem = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Anchor{Config: c, cancel: cancel, done: make(chan struct{}), seen: make(map[string]uint64)}
	go a.run(ctx)
	return a, nil
}

// Close ends it; what is not anchored by now is after the next start.
func (a *Anchor) Close() error {
	a.once.Do(a.cancel)
	<-a.done
	return nil
}

func (a *Anchor) run(ctx context.Context) {
	defer close(a.done)
	tick := time.NewTicker(a.Every)
	defer tick.Stop()
	for {
		err := a.work(ctx)
		if ctx.Err() != nil {
			return
		}
		a.report(err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *Anchor) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == a.problem {
		return
	}
	a.problem = text
	a.Problem(text)
	if err != nil {
		a.Log.Warn("the sealed log could not be anchored everywhere; it is tried again", "error", err)
	}
}

// work shows the newest head to all. One that fails does not keep it from the
// others.
func (a *Anchor) work(ctx context.Context) error {
	tiles, err := auditlog.OpenTiles(auditlog.TilesDir(a.StateDir), a.Key)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	head := tiles.Head()
	if head.Size == 0 {
		return nil
	}
	var errs []error
	line := Line{Time: time.Now().UTC(), Note: string(head.Note)}
	if head.Size != a.last {
		for _, w := range a.Witnesses {
			sig, err := w.cosign(ctx, tiles, a.seen)
			if err != nil {
				errs = append(errs, fmt.Errorf("witness %s: %w", w.Key.Name, err))
				continue
			}
			line.Note += sig
		}
	}
	if a.Stamper != nil && time.Since(a.stamped) >= a.StampEvery && head.Size != a.last {
		if line.Stamp, err = a.Stamper.stamp(ctx, head.Note); err != nil {
			errs = append(errs, fmt.Errorf("time stamp of %s: %w", a.Stamper.URL, err))
		} else {
			a.stamped = time.Now()
		}
	}
	if line.Note != string(head.Note) || line.Stamp != nil {
		if err := a.keep(line); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		a.last = head.Size
	}
	if a.Store != nil {
		err := a.upload(ctx, tiles)
		for try := 0; errors.Is(err, errGrown) && try < 3; try++ {
			if tiles, err = auditlog.OpenTiles(auditlog.TilesDir(a.StateDir), a.Key); err == nil {
				err = a.upload(ctx, tiles)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("copy to %s: %w", a.Store.Endpoint, err))
		}
	}
	return errors.Join(errs...)
}

// Line is a line of STATE_DIR/log/anchors (auditlog.AnchorsFile).
type Line struct {
	Time  time.Time `json:"time"`
	Note  string    `json:"note"`            // the head, with the witnesses' signatures
	Stamp []byte    `json:"stamp,omitempty"` // TimeStampResp of RFC 3161 over the note as the node alone signed it
}

func (a *Anchor) keep(line Line) error {
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if err := audit.AppendLine(auditlog.AnchorsFile(a.StateDir), b); err != nil {
		return fmt.Errorf("keep what witnesses said: %w", err)
	}
	return nil
}

// client is for both protocols over HTTP; it follows nobody elsewhere.
func client() *http.Client {
	return &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
