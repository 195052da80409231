package identity

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/weirproxy/weir/internal/flow"
)

// Bind verifies a token and binds the caller's login session to it (weir login).
// The same person signing in again renews the binding, and live flows go on;
// somebody else replaces it.
func (m *Manager) Bind(ctx context.Context, caller *Caller, rawToken string) (Binding, error) {
	principal, err := m.verifier.Verify(ctx, rawToken)
	if err != nil {
		return Binding{}, err
	}
	m.change.Lock()
	defer m.change.Unlock()
	proc, err := caller.refresh()
	if err != nil {
		return Binding{}, err
	}
	if exec, err := m.findExec(&proc); err != nil {
		return Binding{}, err
	} else if exec != nil {
		return Binding{}, ErrInsideExec
	}
	m.mu.RLock()
	old := m.logins[loginKeyOf(&proc)]
	m.mu.RUnlock()
	if old != nil && samePerson(old.Principal, principal) {
		return m.renew(ctx, old, principal, &proc)
	}
	return m.bindLogin(ctx, old, principal, &proc)
}

func (m *Manager) bindLogin(ctx context.Context, old *Binding, principal *flow.Principal, proc *flow.Process) (Binding, error) {
	if err := m.checkLimits(proc.UID); err != nil {
		return Binding{}, err
	}
	b, err := m.newBinding(LoginBinding, principal, proc)
	if err != nil {
		return Binding{}, err
	}
	b.Cgroup, b.CgroupID = proc.Cgroup, proc.CgroupID
	// The record comes first: an identity that was not recorded must not serve.
	if err := m.emit(ctx, Event{Type: Bound, Binding: *b, Process: proc}); err != nil {
		return Binding{}, fmt.Errorf("the sign-in could not be recorded: %w", err)
	}
	if err := m.store.save(b, m.bootID); err != nil {
		m.tell(ctx, Event{Type: Unbound, Binding: *b, Process: proc, Reason: ReasonFailed})
		return Binding{}, fmt.Errorf("the sign-in could not be kept: %w", err)
	}
	m.publish(b)
	if old != nil {
		if err := m.end(ctx, old, ReasonReplaced, proc); err != nil {
			m.cfg.Log.Error("an old binding stays on disk", "binding", old.ID, "error", err)
		}
	}
	return *b, nil
}

// renew gives a binding, and those taken over from it, a new token.
func (m *Manager) renew(ctx context.Context, old *Binding, principal *flow.Principal, proc *flow.Process) (Binding, error) {
	b := *old
	b.Principal, b.expired = withSession(principal, old.ID), false
	b.Verified = m.cfg.Now()
	if err := m.emit(ctx, Event{Type: Renewed, Binding: b, Process: proc}); err != nil {
		return Binding{}, fmt.Errorf("the sign-in could not be recorded: %w", err)
	}
	if err := m.store.save(&b, m.bootID); err != nil {
		return Binding{}, fmt.Errorf("the sign-in could not be kept: %w", err)
	}
	m.publish(&b)
	for _, child := range m.children(b.ID) {
		if child.Ended != "" {
			continue
		}
		if _, err := m.renew(ctx, child, principal, proc); err != nil {
			m.cfg.Log.Error("a command keeps its old token", "binding", child.ID, "error", err)
		}
	}
	return b, nil
}

func (m *Manager) newBinding(kind BindingKind, principal *flow.Principal, proc *flow.Process) (*Binding, error) {
	now := m.cfg.Now()
	id, err := newBindingID(now)
	if err != nil {
		return nil, err
	}
	return &Binding{
		ID: id, Kind: kind, Principal: withSession(principal, id), Since: now, Verified: now,
		UID: proc.UID, LoginUID: proc.LoginUID, AuditSession: proc.AuditSession,
	}, nil
}

// BindExec moves the caller into a cgroup of its own and binds that to a token,
// or without one to the identity that the caller has (weir exec). After it
// returns, the caller executes its command: the command's exit status stays its
// own. On error the caller is where it was and nothing is left.
func (m *Manager) BindExec(ctx context.Context, caller *Caller, rawToken string) (Binding, error) {
	var principal *flow.Principal
	var err error
	if rawToken != "" {
		if principal, err = m.verifier.Verify(ctx, rawToken); err != nil {
			return Binding{}, err
		}
	}
	m.change.Lock()
	defer m.change.Unlock()
	proc, err := caller.refresh()
	if err != nil {
		return Binding{}, err
	}
	parent := ""
	if principal == nil {
		from, err := m.find(&proc)
		if err != nil {
			return Binding{}, err
		}
		if principal, err = from.current(m.cfg.Now()); err != nil {
			return Binding{}, err
		}
		parent = from.ID
	}
	if err := m.checkLimits(proc.UID); err != nil {
		return Binding{}, err
	}
	b, err := m.newBinding(ExecBinding, principal, &proc)
	if err != nil {
		return Binding{}, err
	}
	b.Parent, b.Cgroup = parent, execCgroupPath(proc.Cgroup, m.cfg.RootGroup, b.ID)
	if err := m.startExec(ctx, caller, b, &proc); err != nil {
		return Binding{}, err
	}
	return *b, nil
}

// startExec makes the cgroup of a new exec binding count and moves the caller
// into it. Whatever fails, the steps before it are undone.
func (m *Manager) startExec(ctx context.Context, caller *Caller, b *Binding, proc *flow.Process) (err error) {
	dir := filepath.Join(m.mount, b.Cgroup)
	// On disk before the cgroup exists: a crash cannot leave one unknown.
	if err := m.store.save(b, m.bootID); err != nil {
		return fmt.Errorf("the binding could not be kept: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.store.remove(b.ID))
		}
	}()
	if b.CgroupID, err = makeExecCgroup(m.mount, b.Cgroup, m.cfg.RootGroup, b.ID); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.removeExec(b))
		}
	}()
	if m.cfg.Attach != nil {
		if err := m.cfg.Attach(dir); err != nil {
			return fmt.Errorf("%w: its connections could not be redirected: %w", ErrCgroup, err)
		}
	}
	b.attached = true
	if err := m.store.save(b, m.bootID); err != nil { // now with the cgroup's id
		return fmt.Errorf("the binding could not be kept: %w", err)
	}
	if err := m.emit(ctx, Event{Type: Bound, Binding: *b, Process: proc}); err != nil {
		return fmt.Errorf("the binding could not be recorded: %w", err)
	}
	m.publish(b) // before the move: no connection of the command finds it missing
	if err := enter(caller, m.mount, proc.Cgroup, b.Cgroup); err != nil {
		m.withdraw(b)
		m.tell(ctx, Event{Type: Unbound, Binding: *b, Process: proc, Reason: ReasonFailed})
		return err
	}
	m.watchExec(b)
	return nil
}

// Unbind ends the binding that covers the caller (weir logout): inside weir exec
// that of the command, otherwise that of the login with all that was taken over
// from it.
func (m *Manager) Unbind(ctx context.Context, caller *Caller) (Binding, error) {
	m.change.Lock()
	defer m.change.Unlock()
	proc, err := caller.refresh()
	if err != nil {
		return Binding{}, err
	}
	b, err := m.find(&proc)
	if err != nil {
		return Binding{}, err
	}
	return *b, m.end(ctx, b, ReasonLogout, &proc)
}

// Revoke ends a binding by its id, whoever holds it.
func (m *Manager) Revoke(ctx context.Context, id string) error {
	m.change.Lock()
	defer m.change.Unlock()
	b := m.binding(id)
	if b == nil || b.Ended != "" {
		return fmt.Errorf("%w: there is no binding %s", ErrNoIdentity, quote(id))
	}
	return m.end(ctx, b, ReasonRevoked, nil)
}

// end makes a binding count no more, and what was taken over from it. An exec
// binding stays, marked as ended, while its cgroup has processes: they must not
// fall back to the identity around them. Memory changes first, so that the end
// holds even if the disk or the recorder fails.
func (m *Manager) end(ctx context.Context, b *Binding, reason string, proc *flow.Process) error {
	var err error
	last := *b
	if b.Kind == ExecBinding {
		ended := *b
		ended.Ended, ended.EndedAt = reason, m.cfg.Now()
		m.publish(&ended)
		err = m.store.save(&ended, m.bootID)
	} else {
		m.withdraw(b)
		err = m.store.remove(b.ID)
	}
	if !b.expired && b.Ended == "" {
		m.tell(ctx, Event{Type: Unbound, Binding: last, Process: proc, Reason: reason})
	}
	for _, child := range m.children(b.ID) {
		if child.Ended == "" {
			err = errors.Join(err, m.end(ctx, child, ReasonParent, proc))
		}
	}
	if err != nil {
		return fmt.Errorf("signed out, but not on disk, so that it may come back with a restart of the agent: %w", err)
	}
	return nil
}

// children returns the bindings taken over from another.
func (m *Manager) children(id string) []*Binding {
	var list []*Binding
	for _, b := range m.all() {
		if b.Parent == id {
			list = append(list, b)
		}
	}
	return list
}
