package identity

import (
	"context"
	"errors"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// run waits for ends: of processes (cgroup.events), of tokens (the clock).
func (m *Manager) run(ctx context.Context) {
	defer close(m.done)
	var events <-chan struct{}
	if m.watch != nil {
		events = m.cgroupEvents(ctx)
	}
	timer := time.NewTimer(m.untilNext())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			if events != nil {
				for range events { // until its goroutine has gone
				}
			}
			return
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case <-timer.C:
		}
		m.sweep(ctx)
		timer.Reset(m.untilNext())
	}
}

// cgroupEvents turns inotify's events into one pending signal.
func (m *Manager) cgroupEvents(ctx context.Context) <-chan struct{} {
	signal := make(chan struct{}, 1)
	go func() {
		defer close(signal)
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-m.watch.Events:
				if !ok {
					return
				}
			case err, ok := <-m.watch.Errors: // an overflow: sweep all the same
				if !ok {
					return
				}
				m.cfg.Log.Warn("watching cgroups", "error", err)
			}
			select {
			case signal <- struct{}{}:
			default:
			}
		}
	}()
	return signal
}

func (m *Manager) watchExec(b *Binding) {
	if m.watch == nil {
		return
	}
	if err := m.watch.Add(eventsFile(m.mount, b.Cgroup)); err != nil {
		m.cfg.Log.Warn("the end of a command will be noticed later", "cgroup", b.Cgroup, "error", err, "within", sweepEvery)
	}
}

// untilNext is the time to the next expiry, at most sweepEvery.
func (m *Manager) untilNext() time.Duration {
	wait, now := sweepEvery, m.cfg.Now()
	for _, b := range m.all() {
		if b.Ended == "" && !b.expired {
			wait = min(wait, b.Principal.Expires.Sub(now))
		}
	}
	return max(wait, time.Millisecond)
}

// sweep notices what ended. Inner cgroups come before those around them.
func (m *Manager) sweep(ctx context.Context) {
	m.change.Lock()
	defer m.change.Unlock()
	list := m.all()
	slices.SortStableFunc(list, func(a, b *Binding) int { return len(b.Cgroup) - len(a.Cgroup) })
	for _, b := range list {
		if b = m.binding(b.ID); b == nil { // an earlier one may have ended it
			continue
		}
		if b.Kind == ExecBinding && m.reap(ctx, b) {
			continue
		}
		if b.Kind == LoginBinding && m.forget(ctx, b) {
			continue
		}
		m.expire(ctx, b)
	}
}

// expire tells, once, that a token has run out. The binding stays, so that its
// processes can be told what happened.
func (m *Manager) expire(ctx context.Context, b *Binding) {
	b = m.binding(b.ID) // the sweep may have changed it
	if b == nil || b.Ended != "" || b.expired || m.cfg.Now().Before(b.Principal.Expires) {
		return
	}
	expired := *b
	expired.expired = true
	m.publish(&expired)
	if err := m.store.save(&expired, m.bootID); err != nil {
		m.cfg.Log.Error("cannot keep that a binding expired", "binding", b.ID, "error", err)
	}
	m.tell(ctx, Event{Type: Expired, Binding: expired})
}

// forget drops logins whose cgroup has gone, and expired ones after a day.
func (m *Manager) forget(ctx context.Context, b *Binding) bool {
	stale := b.expired && m.cfg.Now().Sub(b.Principal.Expires) > keepExpired
	if !stale && !b.bySession() {
		id, err := cgroupID(m.mount, b.Cgroup)
		stale = err != nil || id != b.CgroupID
	}
	if !stale {
		return false
	}
	if err := m.end(ctx, b, ReasonExited, nil); err != nil {
		m.cfg.Log.Error("an old binding stays on disk", "binding", b.ID, "error", err)
	}
	return true
}

// reap removes an exec cgroup whose last process has ended, and its binding.
func (m *Manager) reap(ctx context.Context, b *Binding) bool {
	if m.owns(b) {
		if alive, err := populated(m.mount, b.Cgroup); err == nil && alive {
			m.attachAgain(b)
			return false
		}
		// EBUSY: a process came in after all (forked by one that was leaving).
		if err := m.removeExec(b); err != nil {
			if !errors.Is(err, unix.EBUSY) {
				m.cfg.Log.Error("cannot remove a cgroup", "cgroup", b.Cgroup, "error", err)
			}
			return false
		}
	}
	m.withdraw(b)
	if err := m.store.remove(b.ID); err != nil {
		m.cfg.Log.Error("an old binding stays on disk", "binding", b.ID, "error", err)
	}
	if b.Ended == "" && !b.expired {
		m.tell(ctx, Event{Type: Unbound, Binding: *b, Reason: ReasonExited})
	}
	for _, child := range m.children(b.ID) {
		if child.Ended == "" { // it left the cgroup that it was started in
			if err := m.end(ctx, child, ReasonParent, nil); err != nil {
				m.cfg.Log.Error("an old binding stays on disk", "binding", child.ID, "error", err)
			}
		}
	}
	return true
}

// owns tells whether the cgroup at a binding's path is the one made for it.
func (m *Manager) owns(b *Binding) bool {
	id, err := cgroupID(m.mount, b.Cgroup)
	return err == nil && id == b.CgroupID && markOf(m.mount, b.Cgroup) == b.ID
}

// removeExec removes the cgroup of a binding, then what the redirect holds for
// it, then the group below the root if that was the last one in it.
func (m *Manager) removeExec(b *Binding) error {
	if err := removeCgroup(m.mount, b.Cgroup); err != nil {
		return err
	}
	if m.cfg.Detach != nil && b.attached {
		if err := m.cfg.Detach(filepath.Join(m.mount, b.Cgroup)); err != nil {
			m.cfg.Log.Error("the redirect keeps what it held for a cgroup that has gone", "cgroup", b.Cgroup, "error", err)
		}
	}
	if parent := path.Dir(b.Cgroup); parent == "/"+m.cfg.RootGroup {
		_ = unix.Rmdir(filepath.Join(m.mount, parent)) // refused while others are in it
	}
	return nil
}

// attachAgain covers a cgroup that outlived an agent.
func (m *Manager) attachAgain(b *Binding) {
	if b.attached {
		return
	}
	if m.cfg.Attach != nil {
		if err := m.cfg.Attach(filepath.Join(m.mount, b.Cgroup)); err != nil {
			m.cfg.Log.Error("connections of a command are not redirected", "cgroup", b.Cgroup, "error", err)
			return
		}
	}
	covered := *b
	covered.attached = true
	m.publish(&covered)
}
