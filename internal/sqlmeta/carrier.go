package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/flow"
)

// Some built-in functions leave behind what a later statement can read, by SHOW, by
// random() or in pg_locks, or what somebody outside can see. Their results are masked
// as any other; what they leave behind is not. So they need no rule only where no
// data can get into the call: not through an argument, and not through the question
// whether they are called at all, which one of many literals can answer (CASE).

// carrier is a call that can carry data out of its statement, and what it needs then.
type carrier struct {
	computed bool
	access   flow.Access
}

// carries notes a call with these arguments.
func (w *walker) carries(args []*pg.Node, needs flow.Access) {
	w.st.carried = append(w.st.carried, carrier{!constants(args), needs})
}

// checkCarriers runs last, when it is known what else the statement does.
func (w *walker) checkCarriers() {
	if len(w.st.carried) == 0 {
		return
	}
	data := w.st.Opaque || w.st.sideEffects
	for _, a := range w.set.list {
		switch a.Verb {
		case flow.Connect, flow.Set, flow.Lock, flow.Listen, flow.Call:
		default:
			data = true
		}
	}
	for _, c := range w.st.carried {
		if data || c.computed {
			w.set.add(c.access)
		}
	}
}

// fill notes that the parameters of a prepared statement come from expressions.
func (w *walker) fill(params []*pg.Node) {
	if constants(params) {
		return
	}
	for i := range w.st.carried {
		w.st.carried[i].computed = true
	}
}

// constants reports whether arguments are written down in the statement, or sent by
// the client as parameters: no expression, however plain.
func constants(args []*pg.Node) bool {
	for _, n := range args {
		for n.GetTypeCast() != nil {
			n = n.GetTypeCast().GetArg()
		}
		if n.GetAConst() == nil && n.GetParamRef() == nil {
			return false
		}
	}
	return true
}
