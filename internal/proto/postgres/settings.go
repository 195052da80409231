package postgres

import (
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/sqlmeta"
)

// settings follows those settings of a session that change what a text means: the
// search path and the role. Their changes go with the transaction: SET holds from
// its commit on, SET LOCAL until the end, a rollback takes both back.
type settings struct {
	now      vars
	defaults vars
	frames   []frame // of the open transaction, the outermost first
	lost     bool    // names can no longer be resolved for sure
	failed   bool    // the open transaction has seen an error
	// generation grows whenever the effective values may have changed.
	generation uint64
	// temp holds the relations that the session made in pg_temp. Names only come:
	// one that is gone does no harm (sqlmeta.Session). Replaced, never changed.
	temp map[string]struct{}
	// unread is set while the server may read texts in another way than it has
	// reported; reread when the open transaction has changed that.
	unread, reread bool
	// reported is set once the server itself reports search_path (PostgreSQL 18).
	reported bool
}

type vars struct {
	path, localPath *pathValue // localPath: SET LOCAL, nil when there is none
	role, localRole *roleValue
}

type pathValue struct {
	list []string
	sure bool
}

type roleValue struct {
	name string
	sure bool
}

// frame is what a rollback goes back to.
type frame struct {
	savepoint string // "" for the transaction itself
	saved     vars
}

func newSettings(path []string, role string) settings {
	v := vars{path: &pathValue{path, true}, role: &roleValue{role, true}}
	return settings{now: v, defaults: v}
}

func (s *settings) path() *pathValue {
	if s.now.localPath != nil {
		return s.now.localPath
	}
	return s.now.path
}

func (s *settings) role() *roleValue {
	if s.now.localRole != nil {
		return s.now.localRole
	}
	return s.now.role
}

// session is the snapshot that statements are analysed under.
func (s *settings) session() sqlmeta.Session {
	p, r := s.path(), s.role()
	out := sqlmeta.Session{Role: r.name, Certain: p.sure && !s.lost, Temp: s.temp}
	out.SearchPath = make([]string, 0, len(p.list))
	for _, name := range p.list {
		switch name {
		case "$user":
			if !r.sure {
				out.Certain = false
			}
			name = r.name
		case "pg_temp", "":
			continue
		}
		out.SearchPath = append(out.SearchPath, name)
	}
	return out
}

// matters reports whether what a statement does to the session changes what later
// texts mean, so that they have to wait for it.
func matters(st *sqlmeta.Statement, dirty bool) bool {
	ef := &st.Effects
	if ef.UnsureSearchPath || ef.ChangesCatalogue || ef.Prepare != "" || ef.Deallocate != "" ||
		ef.DeclareCursor != "" || ef.CloseCursor != "" || len(ef.CreatesTemp) > 0 || st.Problem != "" {
		return true
	}
	for _, c := range ef.Settings {
		switch strings.ToLower(c.Name) {
		case "search_path", "role", "session_authorization", "standard_conforming_strings", "client_encoding", "*":
			return true
		}
	}
	switch ef.Tx {
	case sqlmeta.TxCommit, sqlmeta.TxRollback, sqlmeta.TxRollbackTo, sqlmeta.TxSavepoint, sqlmeta.TxRelease:
		return dirty
	}
	return false
}

// dirty reports whether the end of the open transaction may change a setting.
func (s *settings) dirty() bool { return len(s.frames) > 0 }

// complete applies what a statement did, now that it succeeded; tag is the server's
// command tag: a COMMIT of a failed transaction is answered ROLLBACK.
func (s *settings) complete(ef *sqlmeta.Effects, tag string) {
	for _, c := range ef.Settings {
		s.set(c)
	}
	if ef.UnsureSearchPath && !s.reported {
		s.unsure()
	}
	if len(ef.CreatesTemp) > 0 {
		s.addTemp(ef.CreatesTemp)
	}
	s.followReading(ef)
	switch ef.Tx {
	case sqlmeta.TxCommit:
		s.end(tag != "ROLLBACK" && !s.failed)
	case sqlmeta.TxRollback:
		s.end(false)
	case sqlmeta.TxSavepoint:
		s.begin()
		s.frames = append(s.frames, frame{ef.Savepoint, s.now})
	case sqlmeta.TxRelease:
		if i := s.savepoint(ef.Savepoint); i > 0 {
			s.frames = s.frames[:i]
		}
	case sqlmeta.TxRollbackTo:
		if i := s.savepoint(ef.Savepoint); i > 0 {
			s.now = s.frames[i].saved
			s.frames = s.frames[:i+1]
			s.failed = false
			s.generation++
		}
	}
}

// maxSavepoints bounds the frames of a transaction; beyond it the path is unsure.
const maxSavepoints = 1024

// maxTemp bounds the names of temporary relations; beyond it the path is unsure for
// good, so that any name is every relation that it could be.
const maxTemp = 1024

func (s *settings) addTemp(names []string) {
	s.generation++
	temp := make(map[string]struct{}, len(s.temp)+len(names))
	for n := range s.temp {
		temp[n] = struct{}{}
	}
	for _, n := range names {
		temp[n] = struct{}{}
	}
	if len(temp) > maxTemp {
		s.lost = true
		return
	}
	s.temp = temp
}

// begin makes sure that there is something to roll back to.
func (s *settings) begin() {
	if len(s.frames) == 0 {
		s.frames = append(s.frames, frame{"", s.now})
	}
	if len(s.frames) > maxSavepoints {
		s.frames = s.frames[:1]
		s.frames[0].saved.path = &pathValue{s.frames[0].saved.path.list, false}
		s.now.path = &pathValue{s.now.path.list, false}
		s.now.localPath = nil
	}
}

func (s *settings) savepoint(name string) int {
	for i := len(s.frames) - 1; i > 0; i-- {
		if s.frames[i].savepoint == name {
			return i
		}
	}
	return 0
}

func (s *settings) set(c sqlmeta.SettingChange) {
	s.begin()
	s.generation++
	switch strings.ToLower(c.Name) {
	case "search_path":
		if s.reported {
			return
		}
		v := s.defaults.path
		if c.Unsure {
			v = &pathValue{s.path().list, false}
		} else if c.Values != nil {
			v = &pathValue{slices.Clone(c.Values), true}
		}
		if c.Local {
			s.now.localPath = v
		} else {
			s.now.path, s.now.localPath = v, nil
		}
	case "role":
		s.setRole(c, "none")
	case "session_authorization":
		s.setRole(c, "default")
	case "*":
		s.now.path, s.now.localPath = s.defaults.path, nil
	}
}

// setRole takes a change of the role; none is the word for the role of the login.
func (s *settings) setRole(c sqlmeta.SettingChange, none string) {
	v := s.defaults.role
	switch {
	case c.Unsure || len(c.Values) > 1:
		v = &roleValue{s.role().name, false}
	case len(c.Values) == 1 && !strings.EqualFold(c.Values[0], none):
		v = &roleValue{c.Values[0], true}
	}
	if c.Local {
		s.now.localRole = v
	} else {
		s.now.role, s.now.localRole = v, nil
	}
}

// unsure says that the path may be anything from now on.
func (s *settings) unsure() {
	s.begin()
	s.generation++
	s.now.path, s.now.localPath = &pathValue{s.path().list, false}, nil
}

// report takes the value of search_path that the server reported.
func (s *settings) report(value string) {
	s.reported = true
	s.generation++
	v := &pathValue{parsePath(value), true}
	s.now.path, s.now.localPath = v, nil
	for i := range s.frames { // a rollback is reported as well
		s.frames[i].saved.path, s.frames[i].saved.localPath = v, nil
	}
}

// ready takes the end of a transaction that ReadyForQuery's status 'I' shows.
func (s *settings) ready(status byte) {
	if s.unread {
		s.generation++
	}
	s.unread, s.reread = false, s.reread && status != 'I'
	if status == 'I' {
		s.end(!s.failed)
	}
}

func (s *settings) end(commit bool) {
	if len(s.frames) > 0 {
		if !commit {
			s.now = s.frames[0].saved
		}
		s.generation++
	}
	s.frames, s.failed = s.frames[:0], false
	s.now.localPath, s.now.localRole = nil, nil
}

// parsePath splits a search_path as the server writes it: names separated by
// commas, in double quotes where they need it.
func parsePath(s string) []string {
	var out []string
	for i := 0; i < len(s); {
		switch s[i] {
		case ' ', ',', '\t', '\n', '\r', '\f', '\v':
			i++
		case '"':
			var name strings.Builder
			for i++; i < len(s); i++ {
				if s[i] == '"' {
					if i+1 >= len(s) || s[i+1] != '"' {
						break
					}
					i++
				}
				name.WriteByte(s[i])
			}
			i++
			out = append(out, name.String())
		default:
			j := i
			for j < len(s) && s[j] != ',' && s[j] != ' ' {
				j++
			}
			out = append(out, strings.ToLower(s[i:j]))
			i = j
		}
	}
	return out
}
