package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/bpf"
	"github.com/weirproxy/weir/internal/flow"
)

// recordVersion is WEIR_RECORD_VERSION of bpf/lib/types.h.
const recordVersion = 1

// Record is what the connect hook wrote about a connection, in the caller's own
// context.
type Record struct {
	Destination netip.AddrPort // where the client wanted to go; IPv4 is unmapped
	Backend     int            // index, as in the Destination that matched
	Process     flow.Process   // all that the kernel knows; Exe, Cgroup and Pod are empty
	Cookie      uint64         // of the client's socket, SO_COOKIE
}

var errNoRecord = errors.New("the kernel handed no record over")

// decode checks a record as the kernel wrote it. The backend is left for the caller,
// who knows which generations are its own.
func decode(raw *bpf.RedirectWeirRecord) (Record, error) {
	if raw.Version != recordVersion {
		return Record{}, fmt.Errorf("record of version %d: %w", raw.Version, errNoRecord)
	}
	if raw.Role != bpf.RedirectWeirRoleWEIR_ROLE_ACCEPTED {
		return Record{}, fmt.Errorf("record of role %d: %w", raw.Role, errNoRecord)
	}
	comm, _, _ := bytes.Cut(raw.Comm[:], []byte{0})
	return Record{
		Destination: netip.AddrPortFrom(netip.AddrFrom16(raw.Addr).Unmap(), networkOrder(raw.Port)),
		Cookie:      raw.Cookie,
		Process: flow.Process{
			PID:          int(raw.Pid),
			StartTime:    raw.StartTime,
			ExeInode:     raw.ExeInode,
			ExeDev:       userDev(raw.ExeDev),
			Comm:         string(bytes.ToValidUTF8(comm, []byte("?"))),
			UID:          raw.Uid,
			LoginUID:     raw.Loginuid,
			AuditSession: raw.AuditSession,
			CgroupID:     raw.Cgroup,
			NetNS:        raw.Netns,
		},
	}, nil
}

// networkOrder swaps a port between the host's order and the network's. The object
// is built for little-endian machines only.
func networkOrder(port uint16) uint16 { return port<<8 | port>>8 }

// userDev turns the kernel's dev_t (12 bits major, 20 bits minor) into stat(2)'s.
func userDev(dev uint32) uint64 { return unix.Mkdev(dev>>20, dev&(1<<20-1)) }
