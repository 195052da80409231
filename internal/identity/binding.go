package identity

import (
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// BindingKind says what a binding hangs on.
type BindingKind string

// The kinds of bindings.
const (
	LoginBinding BindingKind = "login" // a login session: weir login
	ExecBinding  BindingKind = "exec"  // a cgroup of its own: weir exec
)

// Binding ties a verified principal to processes. Values are never changed once
// published; a change publishes a new one.
type Binding struct {
	ID        string // a ULID; Principal.Session and the audit field "session"
	Kind      BindingKind
	Principal *flow.Principal
	Since     time.Time
	Verified  time.Time // when its present token was verified
	Parent    string    // the binding that weir exec without a token took over, or ""

	// Of an exec binding: its cgroup, below the cgroup v2 mount. Of a login
	// binding without an audit session: the cgroup that it holds in.
	Cgroup   string
	CgroupID uint64

	// Of a login binding: the audit session, or else (UID, CgroupID).
	UID          uint32
	LoginUID     uint32 // flow.Unset without an audit session
	AuditSession uint32 // flow.Unset without one

	Ended    string    // why it no longer counts although its cgroup still exists; "" while it does
	EndedAt  time.Time // when
	expired  bool      // the expire event has been sent
	attached bool      // the redirect covers the exec cgroup
}

// loginKey is what a login binding is found by.
type loginKey struct {
	loginUID, session uint32 // both set, or both flow.Unset
	uid               uint32
	cgroup            uint64
}

// loginKeyOf returns the login that a process belongs to: its audit session,
// which survives su and sudo, or else its user in its cgroup.
func loginKeyOf(p *flow.Process) loginKey {
	if p.LoginUID != flow.Unset && p.AuditSession != flow.Unset {
		return loginKey{loginUID: p.LoginUID, session: p.AuditSession}
	}
	return loginKey{loginUID: flow.Unset, session: flow.Unset, uid: p.UID, cgroup: p.CgroupID}
}

func (b *Binding) loginKey() loginKey {
	return loginKeyOf(&flow.Process{UID: b.UID, LoginUID: b.LoginUID, AuditSession: b.AuditSession, CgroupID: b.CgroupID})
}

// bySession tells whether a login binding hangs on an audit session.
func (b *Binding) bySession() bool { return b.AuditSession != flow.Unset }

// current returns the principal while the binding counts.
func (b *Binding) current(now time.Time) (*flow.Principal, error) {
	if !now.Before(b.Principal.Expires) {
		return nil, &ExpiredError{User: b.Principal.User, Kind: b.Kind, At: b.Principal.Expires}
	}
	return b.Principal, nil
}

// EventType says what happened to a binding.
type EventType string

// The types of events.
const (
	Bound   EventType = "bound"
	Renewed EventType = "renewed" // the same person signed in again: same id, new token
	Unbound EventType = "unbound"
	Expired EventType = "expired"
)

// Reasons of Unbound events.
const (
	ReasonLogout   = "logout"   // asked for by the caller
	ReasonRevoked  = "revoked"  // taken away
	ReasonReplaced = "replaced" // somebody else signed in on the same login
	ReasonParent   = "parent"   // the binding that it was taken over from ended
	ReasonExited   = "exited"   // the last process of the cgroup ended
	ReasonFailed   = "failed"   // the command could not be started
	ReasonReboot   = "reboot"   // found after a restart of the machine
	ReasonRefused  = "refused"  // the configuration no longer accepts its token
)

// Event is one change of a binding. An identity.bind record belongs to Bound and
// Renewed, identity.unbind to the others; live flows whose Principal.Session is
// Binding.ID end on Unbound and Expired.
type Event struct {
	Type    EventType
	Time    time.Time
	Binding Binding
	Process *flow.Process // who asked for it; nil: nobody, it came about
	Reason  string        // of Unbound
}
