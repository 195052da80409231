package sqlmeta

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
)

// Analyze says what each statement of text does, in order. tree must be the
// parse tree of exactly text. The result shares no memory with the tree and must
// not be changed by those who get it.
func Analyze(tree *pg.ParseResult, text string, s Session, c *Catalog) []*Statement {
	if len(tree.GetStmts()) > MaxStatements {
		return []*Statement{Unreadable(text, fmt.Sprintf("more than %d statements in one message", MaxStatements), 0)}
	}
	if problem := s.misread(text); problem != "" {
		return []*Statement{Unreadable(text, problem, 0)}
	}
	env := s.key(c)
	out := make([]*Statement, len(tree.GetStmts()))
	for i, raw := range tree.GetStmts() {
		part, ok := slice(text, raw)
		if !ok {
			return []*Statement{Unreadable(text, "the parser and the text disagree", 0)}
		}
		out[i] = analyze(raw.GetStmt(), part, &s, c)
		out[i].env = env
	}
	return out
}

// Unreadable is the statement for a text that cannot be read. cursor is the
// position of a syntax error, in characters from 1, or 0.
func Unreadable(text, problem string, cursor int) *Statement {
	return &Statement{
		Text: text, Tag: "UNKNOWN", Problem: problem, Cursor: cursor, Opaque: true, Rows: true,
		Accesses: []flow.Access{{Verb: flow.Unknown}}, All: Lineage{Unknown: problem},
		Effects: Effects{UnsureSearchPath: true},
	}
}

// misread says why the server may read the text in another way than the parser,
// "" when it cannot.
func (s *Session) misread(text string) string {
	if !s.StandardConformingStrings && backslashes(text) {
		return "a backslash in a string while standard_conforming_strings is off"
	}
	switch strings.ToUpper(strings.ReplaceAll(s.Encoding, "-", "")) {
	case "", "UTF8", "UNICODE", "SQL_ASCII":
		return ""
	}
	for i := range len(text) {
		if text[i] >= 0x80 {
			return "a character beyond ASCII while client_encoding is not UTF8"
		}
	}
	return ""
}

// slice is the part of text that a raw statement covers.
func slice(text string, raw *pg.RawStmt) (string, bool) {
	start, length := int(raw.GetStmtLocation()), int(raw.GetStmtLen())
	if start < 0 || length < 0 || start > len(text) || length > len(text)-start {
		return "", false
	}
	if length == 0 {
		length = len(text) - start
	}
	return strings.Trim(text[start:start+length], pathSpace), true
}

// envKey digests what of the session and the catalogue an analysis depends on.
type envKey [sha256.Size]byte

func (s *Session) key(c *Catalog) envKey {
	var buf [512]byte
	return sha256.Sum256(s.AppendKey(buf[:0], c))
}

// AppendKey appends what of the session and the catalogue an analysis depends
// on, apart from Prepared, Cursor and Temp. No key is the beginning of another.
func (s *Session) AppendKey(b []byte, c *Catalog) []byte {
	flags := byte(0)
	if s.Certain {
		flags |= 1
	}
	if s.StandardConformingStrings {
		flags |= 2
	}
	if c != nil {
		flags |= 4
	}
	if s.Offline {
		flags |= 8
	}
	b = append(b, flags)
	if c != nil {
		b = append(b, c.digest[:16]...)
	}
	b = appendString(b, s.Database)
	b = appendString(b, s.Role)
	b = appendString(b, s.Encoding)
	b = binary.AppendUvarint(b, uint64(len(s.SearchPath)))
	for _, p := range s.SearchPath {
		b = appendString(b, p)
	}
	return b
}

func appendString(b []byte, v string) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// Current reports whether the statement means under this session and catalogue
// what it meant when it was analysed.
func (st *Statement) Current(s *Session, c *Catalog) bool { return st.env == s.key(c) }

// Cacheable reports whether the analysis depends on nothing but the text and
// Session.Key.
func (st *Statement) Cacheable() bool { return !st.looksUp }

// analyze never lets a surprise in a tree pass as harmless, nor take the agent
// down: a panic is an unreadable statement.
func analyze(n *pg.Node, text string, s *Session, c *Catalog) (st *Statement) {
	defer func() {
		if r := recover(); r != nil {
			st = Unreadable(text, "the statement has a shape that weir does not know", 0)
			st.looksUp = true // not worth keeping
		}
	}()
	w := newWalker(text, s, c)
	w.run(n)
	return w.st
}

// walker goes through one statement's tree.
type walker struct {
	s   *Session
	c   *Catalog
	st  *Statement
	set accessSet

	top       proto.Message       // the statement itself: only it has effects
	ctes      *cte                // WITH names in scope, innermost first
	verb      flow.Verb           // of a relation that stands where the walk has no opinion
	locked    *[]lockable         // collects what FROM names, for FOR UPDATE
	reads     map[Read]int        // where in st.Reads
	writes    map[string]struct{} // columns written
	languages map[string]struct{} // of the functions called
	implied   []callee            // functions called without being written as calls: operators
}

func newWalker(text string, s *Session, c *Catalog) *walker {
	st := &Statement{Text: text}
	st.All.Plain, st.reads.Plain, st.calls.Plain = true, true, true
	return &walker{s: s, c: c, st: st}
}

func (w *walker) run(n *pg.Node) {
	w.verb = flow.Select
	m := unwrap(n)
	if m == nil {
		w.fail("an empty statement")
		w.finish()
		return
	}
	w.top = m
	w.st.Tag = tag(m)
	if !w.statement(m) {
		w.fail("a kind of statement that weir does not know: " + w.st.Tag)
	}
	if w.st.Problem == "" {
		w.trace(m)
	}
	w.finish()
}

// sub analyses a statement inside the present one, as a statement of its own.
func (w *walker) sub(n *pg.Node) *Statement {
	inner := newWalker(w.st.Text, w.s, w.c)
	inner.run(n)
	inner.st.env = w.s.key(w.c)
	w.st.looksUp = w.st.looksUp || inner.st.looksUp
	return inner.st
}

// take adds to the present statement what another one does.
func (w *walker) take(inner *Statement) {
	if inner.Problem != "" {
		w.fail(inner.Problem)
	}
	for _, a := range inner.Accesses {
		if a.Verb != flow.Connect {
			w.set.add(a)
		}
	}
	w.st.carried = append(w.st.carried, inner.carried...)
	w.st.Stored = append(w.st.Stored, inner.Stored...)
	for _, name := range inner.Uses.Written {
		w.written(name)
	}
	w.takeReads(inner)
}

// takeReads adds what another statement can bring to the output.
func (w *walker) takeReads(inner *Statement) {
	for _, f := range inner.Functions {
		w.function(f)
	}
	for _, r := range inner.Reads {
		w.addRead(r)
	}
	for n := range inner.Names {
		w.name(n)
	}
	w.st.Tests = append(w.st.Tests, inner.Tests...)
	w.st.reads.join(inner.reads)
	w.st.calls.join(inner.calls)
	w.st.wants = append(w.st.wants, inner.wants...)
	for _, l := range inner.Languages {
		w.note(&Function{Language: l})
	}
	w.st.SecurityDefiner = w.st.SecurityDefiner || inner.SecurityDefiner
	w.st.Opaque = w.st.Opaque || inner.Opaque
	w.st.Unresolved = w.st.Unresolved || inner.Unresolved
	w.st.looksUp = w.st.looksUp || inner.looksUp
}

// fail makes the statement unknown. The first problem counts.
func (w *walker) fail(problem string) {
	if w.st.Problem == "" {
		w.st.Problem = problem
	}
}

func (w *walker) add(v flow.Verb, resource string) {
	w.set.add(flow.Access{Verb: v, Resource: resource})
}

func (w *walker) name(n string) {
	if w.st.Names == nil {
		w.st.Names = make(map[string]struct{}, 8)
	}
	w.st.Names[n] = struct{}{}
}

// written notes a column that is written to.
func (w *walker) written(column string) {
	if w.writes == nil {
		w.writes = make(map[string]struct{}, 4)
	}
	w.writes[column] = struct{}{}
}

// takeOutput makes the rows of another statement those of the present one.
func (w *walker) takeOutput(inner *Statement) {
	w.st.Rows, w.st.Output = inner.Rows, slices.Clone(inner.Output)
	w.st.All.join(inner.All)
}

func (w *walker) function(qualified string) {
	for _, have := range w.st.Functions {
		if have == qualified {
			return
		}
	}
	w.st.Functions = append(w.st.Functions, qualified)
}

// finish turns what was collected into the statement.
func (w *walker) finish() {
	w.checkCarriers()
	st := w.st
	st.Uses = flow.ColumnUse{Read: columnNames(st.reads.Columns), Written: sorted(w.writes), Tested: testedNames(st.Tests)}
	st.Languages = sorted(w.languages)
	if st.Problem != "" {
		st.Accesses = []flow.Access{{Verb: flow.Unknown}}
		st.Opaque, st.Rows, st.Output = true, true, nil
		st.All.join(Lineage{Unknown: st.Problem})
		st.Effects.UnsureSearchPath = true
		return
	}
	for _, a := range w.set.list {
		switch a.Verb {
		case flow.Create, flow.Alter, flow.Drop:
			w.st.Effects.ChangesCatalogue = true
		}
	}
	w.st.Accesses = w.set.list
	if len(w.st.Accesses) == 0 {
		if !mayBeHarmless(w.top) {
			w.fail("nothing to decide in a statement of this kind: " + w.st.Tag)
			w.finish()
			return
		}
		w.st.Accesses = []flow.Access{{Verb: flow.Connect, Resource: databaseResource(w.s.Database)}}
	}
}
