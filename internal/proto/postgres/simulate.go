package postgres

import "github.com/weirproxy/weir/internal/sqlmeta"

// simulation is the session as it will be in the middle of a string of statements.
type simulation struct {
	settings   settings
	statements map[string]*prepared // nil: gone
	portals    map[string]*prepared
	noOthers   bool // DEALLOCATE ALL
	noCursors  bool // CLOSE ALL
}

func newSimulation(s *resolving) simulation {
	return simulation{settings: s.settings, statements: make(map[string]*prepared), portals: make(map[string]*prepared)}
}

// complete applies what a statement will have done.
func (m *simulation) complete(s *resolving, st *sqlmeta.Statement) {
	ef := &st.Effects
	m.settings.complete(ef, "")
	inner := func() *prepared {
		p := &prepared{analysis: analysis{generation: noGeneration}, reading: s.out.reading, within: true}
		if ef.Inner != nil {
			p.text = ef.Inner.Text
		}
		return p
	}
	switch {
	case ef.Prepare != "":
		m.statements[clip(ef.Prepare)] = inner()
	case ef.Deallocate == "*":
		m.noOthers = true
		clear(m.statements)
	case ef.Deallocate != "":
		m.statements[clip(ef.Deallocate)] = nil
	}
	switch {
	case ef.DeclareCursor != "":
		m.portals[clip(ef.DeclareCursor)] = inner()
	case ef.CloseCursor == "*":
		m.noCursors = true
		clear(m.portals)
	case ef.CloseCursor != "":
		m.portals[clip(ef.CloseCursor)] = nil
	}
}

// session is what the next statement is analysed under.
func (m *simulation) session(s *resolving) sqlmeta.Session {
	out := m.settings.session()
	base := s.lookups()
	out.Database, out.StandardConformingStrings, out.Encoding = base.Database, base.StandardConformingStrings, base.Encoding
	out.Certain = out.Certain && base.Certain
	out.Prepared = func(name string) *sqlmeta.Statement {
		s.out.named = true
		if p, ok := m.statements[name]; ok {
			return m.current(s, p, out)
		}
		if m.noOthers {
			return nil
		}
		p, _ := s.statements.get(name, s.batch)
		return m.current(s, p, out)
	}
	out.Cursor = func(name string) *sqlmeta.Statement {
		s.out.named = true
		if p, ok := m.portals[name]; ok {
			return m.current(s, p, out)
		}
		if m.noCursors {
			return nil
		}
		return base.Cursor(name)
	}
	return out
}

// current is what a prepared statement will mean.
func (m *simulation) current(s *resolving, p *prepared, session sqlmeta.Session) *sqlmeta.Statement {
	if p == nil || p.text == "" {
		return nil
	}
	if s.depth++; s.depth > maxDepth {
		return nil
	}
	defer func() { s.depth-- }()
	p.reading.apply(&session)
	stmts := s.statementsOf(p.text, session)
	if len(stmts) != 1 {
		return nil
	}
	return p.meant(stmts[0])
}
