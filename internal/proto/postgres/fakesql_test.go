package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// fakeAnalyze is an analyser for scripted conversations: statements are separated by
// semicolons, the first word is the verb, FROM, INTO, UPDATE and COPY name
// relations. A text that begins with "weird" does not parse.
func fakeAnalyze(_ context.Context, sql string, s sqlmeta.Session, c *sqlmeta.Catalog) (out []*sqlmeta.Statement, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the fake analyser cannot read this")
		}
	}()
	for _, text := range strings.Split(sql, ";") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		if strings.HasPrefix(text, "weird") {
			return nil, fakeSyntax{}
		}
		st, err := fakeStatement(text, s, c)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

type fakeSyntax struct{}

func (fakeSyntax) Error() string              { return "syntax error" }
func (fakeSyntax) SyntaxError() (string, int) { return `syntax error at or near "weird"`, 1 }

var (
	fakeFrom  = regexp.MustCompile(`(?i)\b(from|into|update|copy|table)\s+([a-z_]+)(\.([a-z_0-9]+))?`)
	fakeNames = regexp.MustCompile(`[a-z_][a-z_0-9]*`)
)

func fakeStatement(text string, s sqlmeta.Session, c *sqlmeta.Catalog) (*sqlmeta.Statement, error) {
	st := &sqlmeta.Statement{Text: text, Rows: true, Names: map[string]struct{}{}}
	star := strings.Contains(text, "*")
	words := strings.Fields(strings.ToLower(text))
	st.Tag = strings.ToUpper(words[0])
	for _, n := range fakeNames.FindAllString(strings.ToLower(text), -1) {
		st.Names[n] = struct{}{}
	}
	verb := flow.Verb(words[0])
	for _, m := range fakeFrom.FindAllStringSubmatch(text, -1) {
		schema, name := m[2], m[4]
		if name == "" {
			schema, name = "public", m[2]
			if len(s.SearchPath) > 0 {
				schema = s.SearchPath[0]
			}
		}
		if strings.EqualFold(m[2], "stdin") || strings.EqualFold(m[2], "select") {
			continue
		}
		read := sqlmeta.Read{Schema: schema, Name: name}
		if r := c.Relation(schema, name); r != nil {
			read.OID = r.OID
			read.DependsOnViews = r.Kind == 'v'
		}
		st.Reads = append(st.Reads, read)
		st.Accesses = append(st.Accesses, flow.Access{Verb: verb, Resource: schema + "." + name})
		fakeLineage(st, c, c.Relation(schema, name), star)
	}
	ef := &st.Effects
	switch words[0] {
	case "begin":
		ef.Tx = sqlmeta.TxBegin
	case "commit":
		ef.Tx = sqlmeta.TxCommit
	case "rollback":
		ef.Tx = sqlmeta.TxRollback
		if len(words) > 2 {
			ef.Tx, ef.Savepoint = sqlmeta.TxRollbackTo, words[2]
		}
	case "savepoint":
		ef.Tx, ef.Savepoint = sqlmeta.TxSavepoint, words[1]
	case "set":
		i := 1
		local := words[1] == "local"
		if local {
			i = 2
		}
		ef.Settings = []sqlmeta.SettingChange{{Name: words[i], Values: strings.FieldsFunc(strings.Join(words[i+2:], " "), func(r rune) bool { return r == ',' || r == ' ' || r == '\'' }), Local: local}}
	case "create", "drop", "alter":
		ef.ChangesCatalogue = true
		for i := range st.Accesses {
			st.Accesses[i].Verb = verb
		}
	case "prepare":
		inner := strings.SplitN(text, " AS ", 2)
		if len(inner) != 2 {
			return nil, fmt.Errorf("fake PREPARE wants AS")
		}
		in, err := fakeStatement(inner[1], s, c)
		if err != nil {
			return nil, err
		}
		in.Text = text
		ef.Prepare, ef.Inner = words[1], in
		st.Accesses = in.Accesses
	case "execute":
		var in *sqlmeta.Statement
		if s.Prepared != nil {
			in = s.Prepared(words[1])
		}
		if in == nil {
			return unreadable(text, "unknown prepared statement"), nil
		}
		st.Accesses, st.Reads, st.Names, st.All, st.Output, st.Copy = in.Accesses, in.Reads, in.Names, in.All, in.Output, in.Copy
	case "declare":
		inner := strings.SplitN(text, " FOR ", 2)
		in, err := fakeStatement(inner[1], s, c)
		if err != nil {
			return nil, err
		}
		in.Text = text
		ef.DeclareCursor, ef.Inner = words[1], in
		st.Accesses = in.Accesses
	case "fetch":
		in := s.Cursor(words[len(words)-1])
		if in == nil {
			return unreadable(text, "unknown cursor"), nil
		}
		st.Accesses, st.Reads, st.Names, st.All, st.Output, st.Copy = in.Accesses, in.Reads, in.Names, in.All, in.Output, in.Copy
	case "copy":
		fakeCopy(st, text, words, c)
	}
	return st, nil
}

func fakeCopy(st *sqlmeta.Statement, text string, words []string, c *sqlmeta.Catalog) {
	st.Copy = &sqlmeta.Copy{In: strings.Contains(text, "FROM STDIN"), Format: "text", Delimiter: '\t', Null: `\N`}
	if strings.Contains(text, "CSV") {
		st.Copy.Format, st.Copy.Delimiter, st.Copy.Quote, st.Copy.Escape, st.Copy.Null = "csv", ',', '"', '"', ""
	}
	if i := strings.Index(text, "("); i > 0 && words[1][0] == '(' {
		st.Copy.Query = text[i+1 : strings.LastIndex(text, ")")]
	} else {
		r := st.Reads[0]
		st.Copy.OID, st.Copy.Schema, st.Copy.Relation = r.OID, r.Schema, r.Name
		if rel := c.Relation(r.Schema, r.Name); rel != nil {
			st.Copy.Columns = rel.Columns
			for i, name := range rel.Columns {
				st.Output = append(st.Output, sqlmeta.Output{Name: name, Lineage: sqlmeta.Lineage{Plain: true, Columns: []sqlmeta.Column{fakeColumn(rel, i)}}})
			}
		}
	}
	verb := flow.CopyOut
	if st.Copy.In {
		verb = flow.CopyIn
	}
	for i := range st.Accesses {
		st.Accesses[i].Verb = verb
	}
}

// fakeLineage lets every column of the result carry whatever is mentioned.
func fakeLineage(st *sqlmeta.Statement, c *sqlmeta.Catalog, rel *sqlmeta.Relation, star bool) {
	if rel == nil {
		st.All.Unknown = "a relation that the catalogue does not have"
		return
	}
	for _, b := range rel.BaseColumns {
		base := c.Relations[b.Relation]
		st.All.Columns = append(st.All.Columns, fakeColumn(base, int(b.Attr)-1))
	}
	for i, name := range rel.Columns {
		if _, ok := st.Names[name]; ok || star {
			st.All.Columns = append(st.All.Columns, fakeColumn(rel, i))
		}
	}
}

func fakeColumn(r *sqlmeta.Relation, i int) sqlmeta.Column {
	return sqlmeta.Column{ColumnID: sqlmeta.ColumnID{Relation: r.OID, Attr: int16(i + 1)}, Schema: r.Schema, Table: r.Name, Name: r.Columns[i]}
}
