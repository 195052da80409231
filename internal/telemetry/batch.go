package telemetry

import (
	"context"
	"sync"
	"time"
)

// Bounds of one export.
const (
	maxBatch      = 512     // as the SDK's batch processors
	maxBatchBytes = 4 << 20 // the limit of gRPC receivers behind an HTTP one
	batchDelay    = time.Second
	maxBatchQueue = 2048
)

// batcher collects what is added and exports it on a goroutine of its own. What
// does not fit into its queue, or is not taken by the receiver, is reported as
// lost.
type batcher[T any] struct {
	queue   chan T
	size    func(T) int // bytes, about
	export  func(context.Context, []T) error
	lost    func(int)
	done    func([]T) // after each export, whatever came of it
	problem func(error)

	closing chan struct{}
	worker  sync.WaitGroup
}

func (b *batcher[T]) start(ctx context.Context) {
	b.queue = make(chan T, maxBatchQueue)
	b.closing = make(chan struct{})
	b.worker.Go(func() { b.run(ctx) })
}

// add never blocks; it must not be called after close.
func (b *batcher[T]) add(v T) {
	select {
	case b.queue <- v:
	default:
		b.lost(1)
		b.done([]T{v})
	}
}

// close exports what is queued and ends the goroutine; ctx of start cuts it short.
func (b *batcher[T]) close() {
	close(b.closing)
	b.worker.Wait()
}

func (b *batcher[T]) run(ctx context.Context) {
	var batch []T
	bytes := 0
	timer := time.NewTimer(batchDelay)
	defer timer.Stop()
	flush := func() {
		if len(batch) > 0 {
			if err := b.export(ctx, batch); err != nil {
				b.lost(len(batch))
				b.problem(err)
			}
			b.done(batch)
		}
		clear(batch)
		batch, bytes = batch[:0], 0
		timer.Reset(batchDelay)
	}
	take := func(v T) {
		batch = append(batch, v)
		if bytes += b.size(v); len(batch) >= maxBatch || bytes >= maxBatchBytes {
			flush()
		}
	}
	for {
		select {
		case v := <-b.queue:
			take(v)
		case <-timer.C:
			flush()
		case <-b.closing:
			for {
				select {
				case v := <-b.queue:
					take(v)
					continue
				default:
				}
				flush()
				return
			}
		}
	}
}
