package redirect

import (
	"errors"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/bpf"
)

// handoverTTL is WEIR_HANDOVER_TTL_NS of bpf/redirect.bpf.c: older entries are not
// handed over any more.
const handoverTTL = 180 * time.Second

// sweep takes out hand-overs older than ttl that nobody took back: of clients whose
// close the kernel did not report, because another sockops program switched the report off.
func (r *Redirector) sweep(ttl time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	limit := max(0, now.Nano()-int64(ttl))
	var key bpf.RedirectWeirHandoverKey
	var value bpf.RedirectWeirRecord
	var old []bpf.RedirectWeirHandoverKey
	it := r.objects.HandoversV1.Iterate()
	for it.Next(&key, &value) {
		if value.Time < uint64(limit) {
			old = append(old, key)
		}
	}
	// An iteration over a table in use can be thrown off its place; the next one
	// finds the rest.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return err
	}
	for _, k := range old {
		if err := r.objects.HandoversV1.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// pending counts the hand-overs between connect and accept.
func (r *Redirector) pending() int {
	var key bpf.RedirectWeirHandoverKey
	var value bpf.RedirectWeirRecord
	n := 0
	for it := r.objects.HandoversV1.Iterate(); it.Next(&key, &value); {
		n++
	}
	return n
}
