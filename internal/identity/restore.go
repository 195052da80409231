package identity

import (
	"context"

	"github.com/weirproxy/weir/internal/flow"
)

// restore reads the bindings of before a restart and drops those that do not
// hold any more. The sweep that follows reaps and expires the rest.
func (m *Manager) restore(ctx context.Context) error {
	m.change.Lock()
	defer m.change.Unlock()
	list, bad, err := m.store.load()
	if err != nil {
		return err
	}
	for _, file := range bad {
		m.cfg.Log.Error("a binding cannot be read and does not count", "file", file)
	}
	for _, s := range list {
		if err := m.restoreOne(ctx, s); err != nil {
			return err
		}
	}
	for _, b := range m.all() {
		if b.Parent != "" && b.Ended == "" && m.binding(b.Parent) == nil {
			if err := m.end(ctx, b, ReasonParent, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Manager) restoreOne(ctx context.Context, s stored) error {
	b, refused := m.rebuild(s)
	if s.Kind == ExecBinding && s.CgroupID == 0 && s.BootID == m.bootID {
		// The agent died while making it; nobody was moved into it yet, so nobody
		// was told of it.
		if id := markOf(m.mount, b.Cgroup); id == b.ID || id == "" {
			_ = m.removeExec(b) // the kernel refuses if it has processes
		}
		return m.store.remove(b.ID)
	}
	if reason := m.gone(s, b); reason != "" {
		if err := m.store.remove(b.ID); err != nil {
			return err
		}
		if b.Ended == "" && !b.expired {
			m.tell(ctx, Event{Type: Unbound, Binding: *b, Reason: reason})
		}
		return nil
	}
	m.publish(b)
	if b.Kind == ExecBinding {
		m.watchExec(b)
	}
	if refused != nil && b.Ended == "" {
		m.cfg.Log.Warn("a binding ends: its token is not accepted any more", "binding", b.ID, "error", refused)
		return m.end(ctx, b, ReasonRefused, nil)
	}
	return nil
}

// rebuild makes a binding from its form on disk. The error says why today's
// configuration does not accept its token.
func (m *Manager) rebuild(s stored) (*Binding, error) {
	// Judged as of its verification: what has expired since is told as expired.
	principal, err := m.verifier.restore(s.Issuer, s.Claims, s.TokenID, s.Verified)
	if err != nil {
		subject, _ := s.Claims["sub"].(string)
		principal = &flow.Principal{Issuer: s.Issuer, Subject: subject, User: subject, TokenID: s.TokenID, Expires: s.Since}
	}
	return &Binding{
		ID: s.ID, Kind: s.Kind, Principal: withSession(principal, s.ID), Since: s.Since, Verified: s.Verified, Parent: s.Parent,
		Cgroup: s.Cgroup, CgroupID: s.CgroupID, UID: s.UID, LoginUID: s.LoginUID, AuditSession: s.AuditSession,
		Ended: s.Ended, EndedAt: s.EndedAt, expired: s.Expired,
	}, err
}

// gone says why what a binding hangs on is not there any more, or "". Cgroup ids
// and audit sessions start again with the machine; within one boot a session is
// never used twice, and a cgroup is known by its mark.
func (m *Manager) gone(s stored, b *Binding) string {
	switch {
	case s.BootID != m.bootID:
		return ReasonReboot
	case b.Kind == ExecBinding && !m.owns(b):
		return ReasonExited
	case b.Kind == LoginBinding && !b.bySession():
		if id, err := cgroupID(m.mount, b.Cgroup); err != nil || id != b.CgroupID {
			return ReasonExited
		}
	case b.Kind != ExecBinding && b.Kind != LoginBinding:
		return ReasonRefused
	}
	return ""
}
