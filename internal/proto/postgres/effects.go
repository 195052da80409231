package postgres

import (
	"strings"
)

// effects applies what a statement did to the session, now that it succeeded.
func (e *Engine) effects(a *act, tag string) {
	st := a.stmt
	ef := &st.Effects
	for _, c := range ef.Settings {
		if c.Name == "application_name" && !c.Unsure && len(c.Values) == 1 { // the client's own words
			e.ownNames = append(e.ownNames[max(0, len(e.ownNames)-maxOwnNames+1):], c.Values[0])
		}
	}
	e.settings.complete(ef, tag)
	e.follow(ef)
	if ef.ChangesCatalogue || st.Problem != "" {
		e.changed, e.doubt = true, e.doubt.after(st)
		e.settings.generation++
		e.cfg.Invalidate(e.grant)
	}
	if st.Problem != "" { // it may have prepared, declared or dropped anything
		e.statements.retain(func(*prepared) bool { return false })
		e.portals.retain(func(*portal) bool { return false })
		e.settings.lost = true
		return
	}
	switch {
	case ef.Prepare != "":
		p := &prepared{analysis: analysis{generation: noGeneration}, reading: a.reading, within: true}
		if ef.Inner != nil {
			p.text, p.bytes = ef.Inner.Text, int64(len(ef.Inner.Text))
			p.analysis.stmt = ef.Inner
		}
		e.statements.enter(clip(ef.Prepare), p)
	case ef.Deallocate == "*":
		e.statements.retain(func(*prepared) bool { return false })
	case ef.Deallocate != "":
		e.statements.confirm(clip(ef.Deallocate), nil, 0)
	}
	switch {
	case ef.DeclareCursor != "":
		p := &portal{prep: &prepared{analysis: analysis{generation: noGeneration}, reading: a.reading, within: true}, generation: e.settings.generation, hold: withHold(st.Text)}
		if ef.Inner != nil {
			p.prep.text, p.prep.bytes = ef.Inner.Text, int64(len(ef.Inner.Text))
			p.prep.analysis.stmt = ef.Inner
		}
		e.portals.enter(clip(ef.DeclareCursor), p)
	case ef.CloseCursor == "*":
		e.portals.retain(func(*portal) bool { return false })
	case ef.CloseCursor != "":
		e.portals.confirm(clip(ef.CloseCursor), nil, 0)
	}
}

// withHold reports whether a DECLARE may be one WITH HOLD: then the cursor may
// outlive its transaction. To keep one that does not is harmless.
func withHold(text string) bool { return strings.Contains(strings.ToLower(text), "hold") }

// maxOwnNames is how many application names a rollback may go back to.
const maxOwnNames = 8

// noGeneration is the generation of an analysis that has to be made anew.
const noGeneration = ^uint64(0)

// clip cuts a name as the server does.
func clip(name string) string { return name[:min(len(name), maxName)] }
