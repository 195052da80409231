package sqlmeta

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/weirproxy/weir/internal/flow"
)

// copy is COPY in all forms. A file or program of the server is unknown besides:
// only a rule that names unknown lets it pass.
func (w *walker) copy(x *pg.CopyStmt) {
	c := &Copy{In: x.GetIsFrom(), Program: x.GetIsProgram(), File: !x.GetIsProgram() && x.GetFilename() != ""}
	c.format(x.GetOptions())
	w.nodes(x.GetOptions())
	w.effects(x, func(*Effects) { w.st.Copy = c })
	if c.Program || c.File {
		w.add(flow.Unknown, "")
	}
	if x.GetQuery() != nil {
		w.copyQuery(x, c)
		return
	}
	verb := flow.CopyOut
	if c.In {
		verb = flow.CopyIn
	}
	for i, n := range w.relation(verb, x.GetRelation()) {
		if !c.In {
			w.read(n)
		}
		if i == 0 {
			c.relation(n, texts(x.GetAttlist()))
		}
	}
	for _, name := range texts(x.GetAttlist()) {
		w.name(name)
	}
	w.node(x.GetWhereClause())
}

// relation fills in what is copied from or to.
func (c *Copy) relation(n named, columns []string) {
	c.Schema, c.Relation, c.Columns = n.schema, n.name, columns
	if n.rel == nil {
		return
	}
	c.OID = n.rel.OID
	if len(columns) > 0 {
		return
	}
	c.Columns = make([]string, 0, len(n.rel.Columns))
	for i, name := range n.rel.Columns {
		if name != "" && (i >= len(n.rel.Generated) || !n.rel.Generated[i]) {
			c.Columns = append(c.Columns, name)
		}
	}
}

func (w *walker) copyQuery(x *pg.CopyStmt, c *Copy) {
	c.Query = innerText(w.st.Text)
	inner := w.sub(x.GetQuery())
	w.take(inner)
	w.takeOutput(inner)
	w.effects(x, func(e *Effects) {
		e.Inner = inner
		e.unsure(inner)
	})
	any := false
	for _, a := range inner.Accesses {
		if a.Verb == flow.Select {
			any = true
			w.add(flow.CopyOut, a.Resource)
		}
	}
	if !any { // no relation's data: as harmless as the same SELECT
		w.add(flow.Connect, databaseResource(w.s.Database))
	}
}

// innerText is what stands between the first parenthesis of a statement and the
// one that closes it.
func innerText(sql string) string {
	l := lexer{text: sql}
	depth, start := 0, 0
	for {
		t := l.next()
		switch {
		case t.kind == tokEnd:
			return ""
		case t.kind != tokOther:
		case sql[t.start] == '(':
			if depth == 0 {
				start = t.end
			}
			depth++
		case sql[t.start] == ')':
			if depth--; depth == 0 {
				return sql[start:t.start]
			}
		}
	}
}

// format reads COPY's options, the old spelling included: the grammar makes the
// same list of both.
func (c *Copy) format(options []*pg.Node) {
	c.Format = "text"
	value := make(map[string]string)
	for _, n := range options {
		o := n.GetDefElem()
		v, ok := literal(o.GetArg())
		if !ok && o.GetArg() == nil {
			v = "true"
		}
		value[o.GetDefname()] = v
	}
	if f := value["format"]; f != "" {
		c.Format = asciiLower(f)
	}
	c.Delimiter, c.Null = '\t', `\N`
	if c.Format == "csv" {
		c.Delimiter, c.Null, c.Quote = ',', "", '"'
	}
	set := func(option string, b *byte) {
		if v := value[option]; len(v) == 1 {
			*b = v[0]
		}
	}
	set("delimiter", &c.Delimiter)
	set("quote", &c.Quote)
	c.Escape = c.Quote
	set("escape", &c.Escape)
	if v, ok := value["null"]; ok {
		c.Null = v
	}
	if v, ok := value["header"]; ok {
		c.Header = truth(v)
	}
	c.Encoding = value["encoding"]
}
