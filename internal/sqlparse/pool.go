package sqlparse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Bounds of the parent's side.
const (
	// MaxTree bounds one statement text's parse tree in protobuf, bytes. Decoded
	// it takes about 20 times as much (BenchmarkDecode).
	MaxTree = 1 << 20
	// maxDecoding bounds the trees being decoded and looked at all together.
	maxDecoding = MaxTree
	// requestTimeout is five times what the largest text takes on a busy machine; a
	// usual statement takes microseconds.
	requestTimeout = 5 * time.Second
	// waitTimeout is how long a statement waits for a free child.
	waitTimeout = 5 * time.Second
	// maxResident is the memory of an idle child above which it is replaced, bytes.
	maxResident = 128 << 20
	// bigAnswer is a tree after which memory is looked after on both sides, bytes.
	bigAnswer = 256 << 10

	minBackoff = 20 * time.Millisecond
	maxBackoff = 5 * time.Second
)

var errFrame = errors.New("the SQL parser process broke the framing")

// Config says how a pool is run. Only Log is required.
type Config struct {
	Size int    // number of child processes; 0: one a CPU, at least 2
	Exe  string // the program to run; "": this one (/proc/self/exe)
	Log  *slog.Logger
}

// Pool parses SQL in child processes. Its methods are safe for concurrent use.
type Pool struct {
	log      *slog.Logger
	keeper   *keeper
	idle     chan *process
	decoding *semaphore.Weighted
	timeout  time.Duration // requestTimeout
	resident int           // maxResident
	deaths   atomic.Int32  // since the last answer
	total    atomic.Int64  // deaths ever

	closing context.Context
	close   context.CancelFunc
	mu      sync.Mutex // guards the start of restarts against Close
	closed  bool
	busy    sync.WaitGroup // requests and restarts under way
}

// New starts the children and returns when all are ready. On error nothing is
// left running. Close ends them.
func New(c Config) (*Pool, error) {
	if c.Size <= 0 {
		c.Size = max(2, runtime.NumCPU())
	}
	if c.Exe == "" {
		c.Exe = "/proc/self/exe"
	}
	p := &Pool{
		log:      c.Log,
		keeper:   newKeeper(c.Exe),
		idle:     make(chan *process, c.Size),
		decoding: semaphore.NewWeighted(maxDecoding),
		timeout:  requestTimeout,
		resident: maxResident,
	}
	p.closing, p.close = context.WithCancel(context.Background())
	errs := make([]error, c.Size)
	var started sync.WaitGroup
	for i := range c.Size {
		started.Go(func() {
			child, err := p.keeper.start()
			if err != nil {
				errs[i] = err
				return
			}
			p.idle <- child
		})
	}
	started.Wait()
	if err := errors.Join(errs...); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close ends all children and waits for them. Requests under way fail.
func (p *Pool) Close() {
	p.mu.Lock()
	already := p.closed
	p.closed = true
	p.mu.Unlock()
	p.close()
	p.busy.Wait()
	if already {
		return
	}
	for {
		select {
		case child := <-p.idle:
			child.kill()
			continue
		default:
		}
		break
	}
	p.keeper.close()
}

// Deaths is the number of children that died so far, for metrics.
func (p *Pool) Deaths() int64 { return p.total.Load() }

// Parse returns the parse tree of sql, or why it is unreadable: *SyntaxError,
// one of the sentinel errors, or the error of ctx.
func (p *Pool) Parse(ctx context.Context, sql string) (*pg_query.ParseResult, error) {
	var tree *pg_query.ParseResult
	err := p.with(ctx, sql, func(t *pg_query.ParseResult) { tree = t })
	return tree, err
}

// with parses sql and lends the tree to use. The memory of all trees lent out at
// once is bounded by maxDecoding.
func (p *Pool) with(ctx context.Context, sql string, use func(*pg_query.ParseResult)) error {
	if err := sqlmeta.Guard(sql); err != nil {
		return err
	}
	a, err := p.request(ctx, sql, 0)
	if err != nil {
		return err
	}
	defer p.decoding.Release(a.weight)
	tree := &pg_query.ParseResult{}
	if err := proto.Unmarshal(a.payload, tree); err != nil {
		// A child sends well-formed trees; what is left is the decoder's own
		// recursion limit, protowire.DefaultRecursionLimit.
		return ErrTooDeep
	}
	a.payload = nil
	use(tree)
	if a.weight > bigAnswer {
		// Garbage of this size goes before the next such tree comes, or the heap
		// grows to several of them.
		tree = nil
		runtime.GC()
	}
	return nil
}

// answered is a tree's bytes, whose weight the taker must release.
type answered struct {
	payload []byte
	weight  int64
}

// plpgsql reads a CREATE FUNCTION in PL/pgSQL.
func (p *Pool) plpgsql(ctx context.Context, text string) (*sqlmeta.PLpgSQL, error) {
	for _, s := range append(sqlmeta.Strings(text), text) {
		if err := sqlmeta.Guard(s); err != nil {
			return nil, err
		}
	}
	a, err := p.request(ctx, text, plpgsqlRequest)
	if err != nil {
		return nil, err
	}
	defer p.decoding.Release(a.weight)
	return sqlmeta.ReadPLpgSQL(a.payload)
}

func (p *Pool) request(ctx context.Context, sql string, kind uint32) (answered, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return answered{}, ErrClosed
	}
	p.busy.Add(1)
	p.mu.Unlock()
	defer p.busy.Done()

	// A child that was dead before it could take the statement is no verdict on
	// the statement: try one other. One that dies of it is never followed by a
	// second.
	for try := 0; ; try++ {
		child, err := p.take(ctx)
		if err != nil {
			return answered{}, err
		}
		a, err := p.ask(child, sql, kind)
		if errors.Is(err, errNotTaken) && try == 0 {
			continue
		}
		if errors.Is(err, errNotTaken) {
			err = ErrParserDied
		}
		return a, err
	}
}

// take waits for an idle child that is alive.
func (p *Pool) take(ctx context.Context) (*process, error) {
	var timeout <-chan time.Time
	for {
		var child *process
		select {
		case child = <-p.idle:
		default:
			if timeout == nil {
				t := time.NewTimer(waitTimeout)
				defer t.Stop()
				timeout = t.C
			}
			select {
			case child = <-p.idle:
			case <-timeout:
				return nil, ErrBusy
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-p.closing.Done():
				return nil, ErrClosed
			}
		}
		if child.alive() {
			return child, nil
		}
		p.replace(child, "ended by itself")
	}
}

var errNotTaken = errors.New("the child was gone before it took the statement")

// ask sends one statement to a child that the caller took, and gives the child
// back or has it replaced.
func (p *Pool) ask(child *process, sql string, request uint32) (answered, error) {
	stop := context.AfterFunc(p.closing, func() {
		// A deadline wakes the reader; only the taker may close the pipes.
		child.in.SetDeadline(time.Unix(1, 0))
		child.out.SetDeadline(time.Unix(1, 0))
	})
	defer stop()
	deadline := time.Now().Add(p.timeout)
	child.in.SetWriteDeadline(deadline)
	child.out.SetReadDeadline(deadline)
	if p.closing.Err() != nil {
		p.replace(child, "shut down")
		return answered{}, ErrClosed
	}
	msg := make([]byte, 4, 4+len(sql))
	binary.BigEndian.PutUint32(msg, uint32(len(sql))|request)
	msg = append(msg, sql...)
	if n, err := child.in.Write(msg); err != nil {
		p.replace(child, "did not take a statement")
		if n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
			return answered{}, errNotTaken
		}
		return answered{}, died(err)
	}
	kind, n, err := readHeader(child.out)
	if err != nil {
		p.replace(child, "died of a statement")
		return answered{}, died(err)
	}
	return p.receive(child, kind, n)
}

func died(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrTimeout
	}
	return ErrParserDied
}

func (p *Pool) receive(child *process, kind byte, n int) (answered, error) {
	limit := 4 + maxMessage + 3
	large := kind == frameTree || kind == frameJSON || kind == frameText
	if large {
		limit = MaxTree
	}
	if n > limit {
		p.replace(child, "broke the framing")
		return answered{}, ErrParserDied
	}
	weight := int64(0)
	if large {
		weight = int64(max(n, 1))
		if err := p.decoding.Acquire(p.closing, weight); err != nil {
			p.replace(child, "shut down")
			return answered{}, ErrClosed
		}
		// The wait was for other statements, not for this child.
		child.out.SetReadDeadline(time.Now().Add(p.timeout))
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(child.out, payload); err != nil {
		p.decoding.Release(weight)
		p.replace(child, "died of a statement")
		return answered{}, died(err)
	}
	p.deaths.Store(0)
	p.giveBack(child, n)
	switch kind {
	case frameTree, frameJSON, frameText:
		return answered{payload: payload, weight: weight}, nil
	case frameError:
		if n >= 4 {
			return answered{}, &SyntaxError{Cursor: int(binary.BigEndian.Uint32(payload)), Message: string(payload[4:])}
		}
	case frameTooBig:
		return answered{}, ErrTooLarge
	}
	return answered{}, ErrParserDied
}

// giveBack returns a healthy child, or a fresh one for a child that has grown.
func (p *Pool) giveBack(child *process, answer int) {
	if answer == 0 || answer > bigAnswer {
		if rss, err := resident(child.cmd.Process.Pid); err == nil && rss > p.resident {
			p.swap(child)
			return
		}
	}
	p.idle <- child
}

// replace kills a child and starts another in its place, later the more of them
// died in a row.
func (p *Pool) replace(child *process, why string) {
	child.kill()
	if p.closing.Err() != nil {
		return
	}
	n := p.deaths.Add(1)
	p.total.Add(1)
	delay := time.Duration(0)
	if n > 1 {
		delay = min(minBackoff<<min(n-2, 16), maxBackoff)
	}
	p.log.Warn("a SQL parser process is replaced", "why", why, "in_a_row", n, "delay", delay)
	p.restart(delay)
}

// swap replaces a child without blaming it.
func (p *Pool) swap(child *process) {
	child.kill()
	p.restart(0)
}

// restart keeps trying to fill one place of the pool. Its callers hold busy.
func (p *Pool) restart(delay time.Duration) {
	p.busy.Go(func() {
		for {
			t := time.NewTimer(delay)
			select {
			case <-t.C:
			case <-p.closing.Done():
				t.Stop()
				return
			}
			child, err := p.keeper.start()
			if err == nil {
				p.idle <- child
				return
			}
			delay = max(minBackoff, min(2*delay, maxBackoff))
			p.log.Error("a SQL parser process does not start: statements are refused until it does", "error", err, "again_in", delay)
		}
	})
}

// resident is the resident set of a process, bytes (proc_pid_statm(5)).
func resident(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, rss int
	if _, err := fmt.Sscan(string(b), &size, &rss); err != nil {
		return 0, err
	}
	return rss * os.Getpagesize(), nil
}
