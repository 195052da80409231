package identity

import (
	"errors"
	"fmt"
	"time"

	"github.com/weirproxy/weir/internal/flow"
)

// Sentinels to branch on. The errors that carry them say what to do.
var (
	// ErrNoIdentity: no binding covers the process.
	ErrNoIdentity = errors.New("no identity")
	// ErrExpired: a binding covers the process, but its token has expired. The
	// error is an *ExpiredError.
	ErrExpired = errors.New("identity expired")
	// ErrToken: the token was refused (form, signature, issuer, audience, time).
	ErrToken = errors.New("token refused")
	// ErrProvider: the token could not be judged, because the provider's keys
	// are not known and the provider did not answer.
	ErrProvider = errors.New("identity provider unavailable")
	// ErrCaller: the kernel could not prove who calls.
	ErrCaller = errors.New("caller unknown")
	// ErrCgroup: a cgroup for weir exec could not be made or entered.
	ErrCgroup = errors.New("cgroup unavailable")
	// ErrLimit: a bound on the number of bindings is reached.
	ErrLimit = errors.New("too many bindings")
	// ErrInsideExec: weir exec has its own identity, a sign-in there would change
	// that of the login around it.
	ErrInsideExec = errors.New("this process runs inside `weir exec`, which has an identity of its own: sign in outside of it, or use `weir exec --token-file`")
)

// ExpiredError says whose identity ended, and when.
type ExpiredError struct {
	User string
	Kind BindingKind
	At   time.Time
}

func (e *ExpiredError) Error() string {
	next := "sign in again with `weir login`"
	if e.Kind == ExecBinding {
		next = "start the command again with `weir exec` and a fresh token"
	}
	return fmt.Sprintf("the identity of %s expired at %s: %s", e.User, e.At.UTC().Format(time.RFC3339), next)
}

// Is makes errors.Is(err, ErrExpired) true.
func (e *ExpiredError) Is(target error) bool { return target == ErrExpired }

// howToSignIn ends every error of a process without an identity.
const howToSignIn = "sign in with `weir login`, or start the command with `weir exec --token-file FILE -- CMD`"

func noIdentity(proc *flow.Process, why string) error {
	return fmt.Errorf("%w: process %d (uid %d) %s: %s", ErrNoIdentity, proc.PID, proc.UID, why, howToSignIn)
}

// quote shows text from outside, bounded and without control characters.
func quote(s string) string {
	const limit = 120 // enough for an issuer's URL
	if len(s) > limit {
		return fmt.Sprintf("%.*q...", limit, s)
	}
	return fmt.Sprintf("%q", s)
}
