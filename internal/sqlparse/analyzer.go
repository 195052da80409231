package sqlparse

import (
	"context"
	"errors"
	"time"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// Analyzer says what SQL text does: sqlmeta behind the pool and the cache. Cache
// may be nil.
type Analyzer struct {
	Pool  *Pool
	Cache *Cache
}

// Analyze returns one Statement for each statement of sql, none for an empty
// text. They are shared and must not be changed. When sql cannot be read, the
// list holds one unknown statement for the whole of it and err says why:
// *SyntaxError, a sentinel error of this package, or that of ctx.
func (a *Analyzer) Analyze(ctx context.Context, sql string, s sqlmeta.Session, c *sqlmeta.Catalog) ([]*sqlmeta.Statement, error) {
	// A session with temporary relations reads names in its own way.
	if a.Cache == nil || len(s.Temp) > 0 || len(sql) >= sqlmeta.MaxText {
		return a.analyze(ctx, sql, s, c)
	}
	k := keyOf(sql, &s, c)
	if e, ok := a.Cache.get(k); ok {
		return e.statements, e.err
	}
	list, err := a.analyze(ctx, sql, s, c)
	e := &entry{key: k, statements: list, err: err}
	if keep(e) {
		a.Cache.put(e, sql)
	}
	return list, err
}

// keep reports whether an answer will be the same next time, and until when.
func keep(e *entry) bool {
	for _, st := range e.statements {
		if !st.Cacheable() {
			return false
		}
	}
	var syntax *SyntaxError
	switch {
	case e.err == nil, errors.As(e.err, &syntax), errors.Is(e.err, ErrTooLarge), errors.Is(e.err, ErrTooDeep), errors.Is(e.err, ErrNotText), errors.Is(e.err, ErrMisread):
		return true
	case errors.Is(e.err, ErrParserDied), errors.Is(e.err, ErrTimeout):
		e.expires = time.Now().Add(deadFor)
		return true
	}
	return false
}

func (a *Analyzer) analyze(ctx context.Context, sql string, s sqlmeta.Session, c *sqlmeta.Catalog) ([]*sqlmeta.Statement, error) {
	s.Prepared = a.refreshed(ctx, s, c)
	for round := 0; ; round++ {
		var list []*sqlmeta.Statement
		err := a.Pool.with(ctx, sql, func(tree *pg_query.ParseResult) {
			list = sqlmeta.Analyze(tree, sql, s, c)
		})
		if err != nil {
			return []*sqlmeta.Statement{unreadable(sql, err)}, err
		}
		wants := sqlmeta.Wants(list)
		if len(wants) == 0 {
			return list, nil
		}
		for i, d := range wants {
			if round == maxRounds || i >= maxDefinitions {
				c.Supply(d.OID, &sqlmeta.Body{Problem: "views and functions that call each other further than weir follows"})
				continue
			}
			b, err := a.read(ctx, d, c)
			if err != nil { // the answer stands, and says what it does not know
				return list, err
			}
			c.Supply(d.OID, b)
		}
	}
}

func unreadable(sql string, err error) *sqlmeta.Statement {
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		return sqlmeta.Unreadable(sql, syntax.Message, syntax.Cursor)
	}
	return sqlmeta.Unreadable(sql, err.Error(), 0)
}

// refreshed wraps Session.Prepared: the server reads a prepared statement anew
// when the search path is another than when it was prepared, and so does this.
func (a *Analyzer) refreshed(ctx context.Context, s sqlmeta.Session, c *sqlmeta.Catalog) func(string) *sqlmeta.Statement {
	prepared := s.Prepared
	if prepared == nil {
		return nil
	}
	current := func(name string) *sqlmeta.Statement {
		st := prepared(name)
		if st == nil || st.Problem != "" || st.Current(&s, c) {
			return st
		}
		return nil
	}
	return func(name string) *sqlmeta.Statement {
		st := prepared(name)
		if st == nil || st.Problem != "" || st.Current(&s, c) {
			return st
		}
		// What it executes in turn must be current: two names that execute each
		// other have no end.
		inner := s
		inner.Prepared = current
		list, err := a.Analyze(ctx, st.Text, inner, c)
		if err != nil || len(list) != 1 {
			return nil
		}
		if list[0].Effects.Prepare != "" && list[0].Tag != st.Tag {
			return list[0].Effects.Inner // st is what a PREPARE prepared
		}
		return list[0]
	}
}
