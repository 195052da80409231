package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// resolved is what a text was found to be. It goes through the driver, back to the
// engine.
type resolved struct {
	from       *resolving
	stmts      []*sqlmeta.Statement
	loose      bool // unreadable: stmts has one that stands for all
	named      bool // it rests on prepared statements or cursors
	catalog    *sqlmeta.Catalog
	generation uint64
	reading    reading
	doubt      *doubt // that results stand under
	syntax     string // what is wrong with the text, in the server's words
	problem    string // why it cannot be read
	position   int    // in characters, 1-based; 0 when unknown
	refuse     string // why it is refused whatever the policy says
}

func (r *resolved) statement(i int) *sqlmeta.Statement {
	if i < len(r.stmts) {
		return r.stmts[i]
	}
	return emptyStatement
}

func (r *resolved) analysis() analysis {
	a := analysis{catalog: r.catalog, generation: r.generation, named: r.named}
	if len(r.stmts) == 1 && !r.loose {
		a.stmt = r.stmts[0]
	} else if len(r.stmts) == 0 {
		a.stmt = emptyStatement
	}
	return a
}

// emptyStatement is a query string without a statement.
var emptyStatement = &sqlmeta.Statement{}

// unreadable is a statement about which nothing is known.
func unreadable(text, problem string) *sqlmeta.Statement {
	return &sqlmeta.Statement{Text: text, Problem: problem, Opaque: true, Rows: true,
		Accesses: []flow.Access{{Verb: flow.Unknown}}, All: sqlmeta.Lineage{Unknown: problem},
		Effects: sqlmeta.Effects{UnsureSearchPath: true, ChangesCatalogue: true}}
}

// resolver makes the function that finds out what a message asks for. It runs
// outside of the engine and works on a snapshot; the tables of names lock
// themselves, and nothing in them that the question rests on is in doubt.
func (e *Engine) resolver(a asked) func(context.Context) ([]*flow.Action, any) {
	s := &resolving{cfg: e.cfg, grant: e.grant, session: e.snapshot(), statements: e.statements, portals: e.portals, batch: e.batch}
	s.settings = e.settings
	s.settings.frames = slices.Clone(e.settings.frames)
	s.out.generation, s.out.reading = e.settings.generation, e.reading()
	s.changed, s.doubt = e.changed, e.doubt
	s.hides = e.hider()
	s.state = e.state()
	s.kind, s.portal, s.inTransaction = a.kind, a.portal, e.status != 'I'
	big, size := e.big(), e.chead.body()
	return func(ctx context.Context) ([]*flow.Action, any) {
		if s.ctx != nil { // after people were asked: the catalogue of this very moment counts
			again := *s
			again.out = resolved{generation: s.out.generation, reading: s.out.reading}
			again.depth, again.moved = 0, false
			s = &again
			e.cfg.Invalidate(e.grant)
		}
		s.ctx, s.out.from = ctx, s
		var err error
		if s.out.catalog, err = e.cfg.Catalog(ctx, e.grant); err != nil {
			e.cfg.Log.Warn("statements are refused: the catalogue cannot be read", "flow", e.grant.Flow().ID, "error", err)
			s.out.loose = true
			s.out.refuse = "weir: the database's catalogue cannot be read just now, so nothing can be decided; try again, or tell whoever runs weir on this node"
			s.out.stmts = []*sqlmeta.Statement{unreadable(a.text, "the catalogue of the database cannot be read")}
			return s.actions(size, nil, nil), &s.out
		}
		switch {
		case big:
			s.out.loose = true
			s.out.stmts = []*sqlmeta.Statement{unreadable(a.text, fmt.Sprintf("longer than the %d bytes that weir analyses", maxStatement))}
			acts := s.actions(size, nil, nil)
			acts[0].Digest = "" // the text is streamed: there is nothing to take a digest of yet
			return acts, &s.out
		case a.kind == msgCall:
			return s.functionCall(a.call, size), &s.out
		case a.kind == msgExecute:
			return s.executed(a.portal), &s.out
		}
		s.analyse(a.text)
		s.whole = a.text
		acts := s.actions(size, nil, nil)
		if len(acts) > 1 { // what stands between them is part of what people approve
			for _, x := range acts {
				x.State = append(slices.Clip(x.State), flow.Setting{Name: "message", Value: digest(a.text, nil)})
			}
		}
		return acts, &s.out
	}
}

// hider finds the masks of the moment for a question that is resolved ahead of its
// decision; answer looks again under the decision's own.
func (e *Engine) hider() func(*sqlmeta.Catalog) *maskSet {
	ahead, cache, config := e.ahead, e.compiler.cache, e.compiler.config
	return func(c *sqlmeta.Catalog) *maskSet {
		if ahead == nil {
			return nil
		}
		masks, revision := ahead()
		if len(masks) == 0 {
			return nil
		}
		found, err := cache.get(masks, revision, c, config)
		if err != nil {
			return nil // answer finds the same and ends the flow
		}
		return found.set
	}
}

type resolving struct {
	ctx        context.Context
	cfg        *Config
	grant      session.Grant
	session    sqlmeta.Session
	settings   settings // a copy
	statements *table[*prepared]
	portals    *table[*portal]
	batch      uint64
	depth      int
	moved      bool // the statements of the string do not share one session state
	changed    bool // the open transaction has changed the catalogue
	doubt      *doubt
	hides      func(*sqlmeta.Catalog) *maskSet
	state      []flow.Setting
	whole      string // the text that the statements are of; "" when it is not known
	kind       byte
	portal     *portal // of an Execute
	// inTransaction is set when the session is in a transaction of its own.
	inTransaction bool
	out           resolved
}

// lookups is the session with its names.
func (s *resolving) lookups() sqlmeta.Session {
	out := s.session
	out.Prepared = func(name string) *sqlmeta.Statement {
		s.out.named = true
		p, _ := s.statements.get(name, s.batch)
		return s.current(p)
	}
	out.Cursor = func(name string) *sqlmeta.Statement {
		s.out.named = true
		p, _ := s.portals.get(name, s.batch)
		if p == nil {
			return nil
		}
		return s.current(p.prep)
	}
	return out
}

// meant is the statement of the text that the name stands for.
func (p *prepared) meant(st *sqlmeta.Statement) *sqlmeta.Statement {
	if p.within && st.Problem == "" {
		return st.Effects.Inner
	}
	return st
}

// maxDepth bounds prepared statements that execute prepared statements.
const maxDepth = 8

// current is what a prepared statement means now.
func (s *resolving) current(p *prepared) *sqlmeta.Statement {
	if p == nil || p == unseen {
		return nil
	}
	a := p.analysis
	if a.stmt != nil && a.catalog == s.out.catalog && a.generation == s.out.generation && !a.named {
		return a.stmt
	}
	if p.text == "" {
		return a.stmt // of a text that is not kept: nil, or empty
	}
	if s.depth++; s.depth > maxDepth {
		return nil
	}
	defer func() { s.depth-- }()
	session := s.lookups()
	p.reading.apply(&session)
	stmts := s.statementsOf(p.text, session)
	if len(stmts) == 0 {
		return emptyStatement
	}
	if len(stmts) > 1 {
		return nil
	}
	return p.meant(stmts[0])
}

// analyse finds the statements of a text.
func (s *resolving) analyse(text string) {
	stmts := s.statementsOf(text, s.lookups())
	if unresolved(stmts) && s.renew() {
		stmts = s.statementsOf(text, s.lookups())
	}
	if len(stmts) > 1 {
		stmts = s.inTurn(stmts)
	}
	stmts = s.inDoubt(stmts)
	s.out.stmts = stmts
	for _, st := range stmts {
		if st.Problem != "" {
			s.out.loose = true
			s.out.problem = st.Problem
			if s.out.syntax == "" && st.Cursor > 0 {
				s.out.syntax, s.out.position = st.Problem, st.Cursor
			}
		}
		s.checkSettings(st)
	}
	if s.out.loose && len(stmts) > 1 {
		// One statement that cannot be read makes the boundaries of all unsure.
		s.out.stmts = []*sqlmeta.Statement{unreadable(text, s.out.problem)}
	}
}

// statementsOf asks the analyser; what it cannot read is one unknown statement.
func (s *resolving) statementsOf(text string, session sqlmeta.Session) []*sqlmeta.Statement {
	stmts, err := s.cfg.Analyze(s.ctx, text, session, s.out.catalog)
	if err == nil {
		return stmts
	}
	if len(stmts) == 1 && stmts[0].Problem != "" {
		return stmts
	}
	var syntax SyntaxError
	if errors.As(err, &syntax) {
		message, position := syntax.SyntaxError()
		st := unreadable(text, message)
		st.Cursor = max(position, 1)
		return []*sqlmeta.Statement{st}
	}
	return []*sqlmeta.Statement{unreadable(text, err.Error())}
}

func unresolved(stmts []*sqlmeta.Statement) bool {
	return slices.ContainsFunc(stmts, func(st *sqlmeta.Statement) bool { return st.Unresolved })
}

// renew looks for a newer catalogue: a statement names what this one does not have.
func (s *resolving) renew() bool {
	s.cfg.Invalidate(s.grant)
	c, err := s.cfg.Catalog(s.ctx, s.grant)
	if err != nil || c == s.out.catalog {
		return false
	}
	s.out.catalog = c
	return true
}

// inTurn analyses the statements of one string each as it will be when those before
// it have succeeded: the server analyses them in turn.
func (s *resolving) inTurn(stmts []*sqlmeta.Statement) []*sqlmeta.Statement {
	out := slices.Clone(stmts)
	changed := false
	var sim simulation
	for i, st := range stmts {
		if changed {
			one := s.statementsOf(st.Text, sim.session(s))
			if len(one) != 1 {
				one = []*sqlmeta.Statement{unreadable(st.Text, "the parser and the text disagree")}
			}
			out[i] = one[0]
		}
		if i+1 < len(stmts) && (changed || matters(out[i], true)) {
			if !changed {
				sim, changed, s.moved = newSimulation(s), true, true
			}
			sim.complete(s, out[i])
		}
	}
	return out
}

// inDoubt marks each statement with what the catalogue does not show of the open
// transaction and of those before it.
func (s *resolving) inDoubt(stmts []*sqlmeta.Statement) []*sqlmeta.Statement {
	d, out := s.doubt, slices.Clone(stmts) // they may be shared
	for i, st := range stmts {
		s.out.doubt = d
		out[i] = d.mark(st, s.out.catalog)
		d = d.after(st)
	}
	return out
}

// checkSettings refuses client encodings in which text cannot be read byte by byte,
// and names that are Weir's own.
func (s *resolving) checkSettings(st *sqlmeta.Statement) {
	for _, c := range st.Effects.Settings {
		if c.Name == "application_name" {
			if problem := nameProblem(c); problem != "" {
				s.out.refuse = problem
			}
		}
		if c.Name != "client_encoding" && c.Name != "names" {
			continue
		}
		if c.Unsure || (len(c.Values) > 0 && !safeEncoding(c.Values[0])) {
			s.out.refuse = "weir: this client_encoding is not accepted: statements in it cannot be read safely; use UTF8"
		}
	}
}

// executed finds out what running a portal does.
func (s *resolving) executed(p *portal) []*flow.Action {
	if p.generation != s.out.generation {
		s.session.Certain = false // its plan was made under another search path
	}
	st := s.current(p.prep)
	if st == nil {
		s.out.loose = true
		text := p.prep.text + p.prep.head
		problem := "weir did not see what this prepared statement or cursor stands for"
		if text != "" {
			problem = "weir cannot read it"
		}
		st = unreadable(text, problem)
	}
	s.out.reading = p.prep.reading
	s.out.stmts = s.inDoubt([]*sqlmeta.Statement{st})
	if st.Problem != "" {
		s.out.loose = true
	}
	s.checkSettings(st)
	s.whole = p.prep.text
	acts := s.actions(p.prep.bytes+p.bytes, p.params, p.digest)
	acts[0].Hidden = p.hidden
	if p.ran { // it goes on with rows of the same tests
		acts[0].Spends = nil
	}
	return acts
}

// firstUserOID is FirstNormalObjectId (access/transam.h): objects below it are the
// server's own.
const firstUserOID = 16384

// functionCall is the action of a FunctionCall message.
func (s *resolving) functionCall(c call, size int64) []*flow.Action {
	name := s.out.catalog.FunctionName(c.function)
	st := &sqlmeta.Statement{Text: fmt.Sprintf("function call of OID %d", c.function), Opaque: true, All: sqlmeta.Lineage{Unknown: "a function call"}}
	st.Effects.UnsureSearchPath = c.function >= firstUserOID || name == "pg_catalog.set_config"
	if name == "" {
		st.Problem = fmt.Sprintf("function OID %d is not in the catalogue", c.function)
		st.Accesses = []flow.Access{{Verb: flow.Unknown}}
	} else {
		st.Text = "function call of " + name
		st.Accesses = []flow.Access{{Verb: flow.Call, Resource: "function:" + name}}
		st.Functions = []string{name}
	}
	s.out.stmts = []*sqlmeta.Statement{st}
	acts := s.actions(size, c.params, nil)
	acts[0].Hidden = c.hidden
	return acts
}

// actions makes one action per statement; one that only connects for a text without
// any.
func (s *resolving) actions(size int64, params []string, bound []byte) []*flow.Action {
	stmts := s.out.stmts
	if len(stmts) == 0 {
		stmts = []*sqlmeta.Statement{emptyStatement}
	}
	out := make([]*flow.Action, len(stmts))
	masks := s.hides(s.out.catalog)
	for i, st := range stmts {
		a := &flow.Action{Accesses: st.Accesses, Functions: st.Functions, Problem: st.Problem,
			Languages: st.Languages, SecurityDefiner: st.SecurityDefiner, Columns: st.Uses, Params: params, Text: recorded(st.Text), Bytes: size}
		if text := s.whole; text != "" && len(stmts) == 1 { // to the byte, with what stands around the statement
			a.Digest = digest(text, bound)
		} else {
			a.Digest = digest(st.Text, bound)
		}
		a.Forbidden, a.Spends = masks.obliges(st)
		a.State = s.state
		if len(stmts) > 1 {
			a.Bytes = int64(len(st.Text))
		}
		if len(a.Accesses) == 0 {
			a.Accesses = []flow.Access{{Verb: flow.Connect, Resource: "database:" + s.session.Database}}
		}
		if s.out.refuse != "" && a.Problem == "" {
			a.Problem, a.Accesses = strings.TrimPrefix(s.out.refuse, "weir: "), []flow.Access{{Verb: flow.Unknown}}
		}
		out[i] = a
	}
	return slices.Clip(out)
}

// recorded is as much of a text as a record holds.
func recorded(text string) string {
	if len(text) > flow.MaxRecordedText {
		text = strings.ToValidUTF8(text[:flow.MaxRecordedText], "")
	}
	return strings.Clone(text)
}

// digest is over the bytes of the statement and, for an execution, over what was
// bound to it.
func digest(text string, bound []byte) string {
	var sum [sha256.Size]byte
	if bound == nil {
		sum = sha256.Sum256([]byte(text))
	} else {
		h := sha256.New()
		h.Write([]byte(text))
		h.Write([]byte{0})
		h.Write(bound)
		h.Sum(sum[:0])
	}
	const name = "sha256:"
	var out [len(name) + 2*sha256.Size]byte
	copy(out[:], name)
	hex.Encode(out[len(name):], sum[:])
	return string(out[:])
}
