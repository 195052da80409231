package postgres

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/internal/sqlmeta"
)

// What people see of a statement that they are to approve, besides its text: the
// server's plan, and how many rows an UPDATE or DELETE would touch. The server is asked on
// a connection of Weir's own (Config.Explain), so what the flow's open transaction has
// changed does not show.

// maxPreviews bounds the statements of one message about which the server is asked.
const maxPreviews = 8

// preview finds out for approvers what a question's message would do. It runs outside of
// the engine, on what its resolver has noted.
func preview(ctx context.Context, extra any) []session.Preview {
	r, _ := extra.(*resolved)
	if r == nil || r.from == nil {
		return nil
	}
	from := r.from
	if from.cfg.Foresee == nil || from.cfg.Explain == nil {
		return nil
	}
	p := &previewing{cfg: from.cfg, grant: from.grant, database: from.session.Database, kind: from.kind, portal: from.portal,
		settings: from.settings, state: from.state, inTransaction: from.inTransaction}
	return p.find(ctx, r)
}

// previewing is one message and the session that it came in.
type previewing struct {
	cfg           *Config
	grant         session.Grant
	database      string
	kind          byte
	portal        *portal // of an Execute
	settings      settings
	state         []flow.Setting
	inTransaction bool
}

// find gives a preview for each action of the message.
func (p *previewing) find(ctx context.Context, r *resolved) []session.Preview {
	out := make([]session.Preview, len(r.stmts))
	moved := false // a statement before changes what those behind it mean
	for i, st := range r.stmts {
		var notes []string
		switch {
		case p.kind == msgCall:
			notes = append(notes, "there is no plan for a function call")
		case r.loose || st.Problem != "":
			notes = append(notes, "weir cannot read it, so the server is not asked")
		case moved:
			notes = append(notes, "a statement before it in the same message changes what it means, so the server is not asked")
		case i >= maxPreviews:
			notes = append(notes, fmt.Sprintf("the server is asked about the first %d statements of a message only", maxPreviews))
		default:
			out[i], notes = p.one(ctx, r, st)
			if i > 0 {
				notes = append(notes, "without what the statements before it in the same message change")
			}
			if p.inTransaction {
				notes = append(notes, "without what the session's open transaction has changed")
			}
		}
		moved = moved || matters(st, true) || len(st.Effects.Settings) > 0
		out[i].Note = strings.Join(notes, "; ")
	}
	return out
}

// one asks about one statement.
func (p *previewing) one(ctx context.Context, r *resolved, st *sqlmeta.Statement) (out session.Preview, notes []string) {
	none := func(why string) (session.Preview, []string) {
		return session.Preview{}, append(notes, why)
	}
	if role := p.settings.role(); !role.sure || role.name == "" {
		return none("weir cannot tell the session's role for sure, so the server is not asked")
	}
	if p.portal != nil && p.portal.generation != p.settings.generation {
		return none("the session's search path has changed since the statement was bound, so the server is not asked")
	}
	set, why := replayed(p.state)
	if why != "" {
		return none(why)
	}
	s := p.settings.session()
	s.Database = p.database
	r.reading.apply(&s)
	cat, err := p.cfg.Catalog(ctx, p.grant) // that of the question may have grown old
	if err != nil {
		return none("the catalogue of the database cannot be read just now, so the server is not asked")
	}
	f, err := p.cfg.Foresee(ctx, st.Text, s, cat)
	if err != nil {
		return none("weir could not look at it just now, so the server is not asked")
	}
	own := *f // the count is left out of it where values are missing
	f = &own
	req := ExplainRequest{Text: st.Text, Forecast: f, Kept: true,
		Settings: append(set, flow.Setting{Name: "role", Value: p.settings.role().name}, flow.Setting{Name: "search_path", Value: writtenPath(s.SearchPath)})}
	if f.Unplanned != "" {
		notes = append(notes, "no plan: "+f.Unplanned)
	}
	if f.Uncounted != "" {
		notes = append(notes, "no count: "+f.Uncounted)
	}
	if why := p.bind(&req, f, r.reading); why != "" {
		notes = append(notes, why)
	}
	if f.Unplanned != "" && f.Count == "" && len(f.Emptied) == 0 {
		return out, notes
	}
	x, err := p.cfg.Explain(ctx, p.grant, req)
	out.Plan, out.Rows = x.Plan, x.Rows
	notes = append(notes, x.Notes...)
	if err != nil {
		notes = append(notes, "the server could not be asked: "+err.Error())
	}
	return out, notes
}

// bind puts what is bound to the portal into the request. Where that cannot be done the
// statement is planned all the same and not counted; the answer says why.
func (p *previewing) bind(req *ExplainRequest, f *sqlmeta.Forecast, r reading) string {
	params := f.Named.Params
	if len(params) == 0 {
		return ""
	}
	if p.portal == nil || p.portal.prep.types == nil {
		// Without the types that its sender has declared a value could mean another one.
		if f.Count == "" {
			return ""
		}
		f.Count = ""
		return "no count: weir does not know the types of the statement's parameters"
	}
	req.Types = p.portal.prep.types
	if f.Count == "" {
		return ""
	}
	n := max(params[len(params)-1], len(req.Types), len(p.portal.params)) // parameters are numbered from 1
	if n > len(p.portal.kinds) {
		f.Count = ""
		return "no count: more was bound to the statement than weir keeps"
	}
	req.Values, req.Formats = make([][]byte, n), make([]int16, n)
	for _, i := range f.Counted.Params {
		v, format, why := p.portal.value(i - 1)
		if why == "" && cleanEncoding(r.encoding) != "utf8" && !ascii(v) {
			why = "it is in the session's encoding, which is not UTF8"
		}
		if why != "" {
			f.Count, req.Values, req.Formats = "", nil, nil
			return fmt.Sprintf("no count: parameter $%d: %s", i, why)
		}
		req.Values[i-1], req.Formats[i-1] = v, format
	}
	return ""
}

// writtenPath is a search path as SET takes it.
func writtenPath(path []string) string {
	out := make([]string, len(path))
	for i, name := range path {
		out[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	return strings.Join(out, ", ")
}

func ascii(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= utf8.RuneSelf })
}

// value is what was bound to a parameter, from 0; why says that it was not kept.
func (p *portal) value(i int) (v []byte, format int16, why string) {
	if i < 0 || i >= len(p.kinds) || i >= len(p.params) {
		return nil, 0, "it was not bound"
	}
	switch p.kinds[i] {
	case paramNull:
		return nil, 0, ""
	case paramText:
		return append([]byte{}, p.params[i]...), 0, ""
	case paramBinary:
		b, err := hex.DecodeString(strings.TrimPrefix(p.params[i], `\x`))
		if err == nil {
			return append([]byte{}, b...), 1, ""
		}
	}
	return nil, 0, "its value is too long to be kept, or it is hidden"
}

// parsedTypes are the types of parameters that the body of a Parse declares, never nil
// for one that is whole; 0 stands for one that it leaves to the server.
func parsedTypes(body []byte) []uint32 {
	for range 2 { // the names
		i := slices.Index(body, 0)
		if i < 0 {
			return nil
		}
		body = body[i+1:]
	}
	if len(body) < 2 {
		return nil
	}
	n := int(binary.BigEndian.Uint16(body))
	if len(body) != 2+4*n {
		return nil
	}
	out := make([]uint32, n)
	for i := range out {
		out[i] = binary.BigEndian.Uint32(body[2+4*i:])
	}
	return out
}

// meaningful are the settings under which values and conditions are read, by their names
// in lower case. What else a session sets may change how a statement runs, and not which
// rows it touches.
var meaningful = map[string]bool{
	"datestyle": true, "intervalstyle": true, "timezone": true, "timezone_abbreviations": true, "standard_conforming_strings": true,
	"transform_null_equals": true, "array_nulls": true, "bytea_output": true, "extra_float_digits": true,
	"default_text_search_config": true, "lc_monetary": true, "lc_numeric": true, "lc_time": true, "xmloption": true, "xmlbinary": true,
}

// replayed are the settings of a session that Weir's own takes over; why says that one
// of them does not show.
func replayed(state []flow.Setting) (out []flow.Setting, why string) {
	for _, s := range state {
		name := strings.ToLower(s.Name)
		if name == "(others)" {
			return nil, "the session has changed more settings than weir follows, so the server is not asked"
		}
		if !meaningful[name] || s.Value == "(reset)" {
			continue
		}
		if len(s.Value) > maxShownSetting || strings.HasPrefix(s.Value, "(") {
			return nil, "weir cannot tell the session's setting " + name + " for sure, so the server is not asked"
		}
		out = append(out, flow.Setting{Name: name, Value: s.Value})
	}
	return out, ""
}
