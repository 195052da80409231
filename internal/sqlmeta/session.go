package sqlmeta

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/flow"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// sessionStatement: transactions, settings, locks, notifications.
func (w *walker) sessionStatement(m proto.Message) bool {
	switch x := m.(type) {
	case *pg.TransactionStmt:
		w.transaction(x)
	case *pg.ConstraintsSetStmt:
		// SET CONSTRAINTS moves checks within the transaction.
	case *pg.VariableSetStmt:
		w.variable(x)
	case *pg.VariableShowStmt:
		w.show(x.GetName())
		w.st.Rows = true
	case *pg.DiscardStmt:
		w.discard(x)
	case *pg.LockStmt:
		w.each(flow.Lock, x.GetRelations())
	case *pg.ListenStmt:
		w.add(flow.Listen, channelResource(x.GetConditionname()))
	case *pg.NotifyStmt:
		w.add(flow.Listen, channelResource(x.GetConditionname()))
	case *pg.UnlistenStmt:
		// Stops only what the session itself listens to.
	default:
		return false
	}
	return true
}

func (w *walker) transaction(x *pg.TransactionStmt) {
	effect := TxNone
	switch x.GetKind() {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START:
		effect = TxBegin
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		effect = TxCommit
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		effect = TxRollback
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		effect = TxSavepoint
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		effect = TxRelease
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		effect = TxRollbackTo
	default:
		// Two-phase commit leaves locks and changes behind for anybody to finish.
		w.fail("two-phase commit")
		if x.GetKind() == pg.TransactionStmtKind_TRANS_STMT_PREPARE {
			effect = TxCommit // for the session it is over
		}
	}
	w.nodes(x.GetOptions())
	w.effects(x, func(e *Effects) {
		e.Tx, e.Savepoint = effect, x.GetSavepointName()
	})
}

// show is SHOW and current_setting. All settings at once, and each secret one,
// are what pg_settings shows.
func (w *walker) show(name string) {
	name = strings.ToLower(name)
	if name == "all" || secretSetting(name) {
		w.add(flow.Select, qualified(pgCatalog, "pg_settings"))
	}
}

func (w *walker) discard(x *pg.DiscardStmt) {
	w.effects(x, func(e *Effects) {
		switch x.GetTarget() {
		case pg.DiscardMode_DISCARD_ALL:
			e.Settings = []SettingChange{{Name: "*"}, {Name: "role"}, {Name: "session_authorization"}}
			e.Deallocate, e.CloseCursor = "*", "*"
			e.DropsTemp = []string{"*"}
			e.UnsureSearchPath = true
		case pg.DiscardMode_DISCARD_TEMP:
			e.DropsTemp = []string{"*"}
		}
	})
}

// variable is SET and RESET in all forms.
func (w *walker) variable(x *pg.VariableSetStmt) {
	w.keepsStrings(x)
	if w.top != proto.Message(x) {
		return // of a function: it ends with each call
	}
	name := strings.ToLower(x.GetName())
	switch x.GetKind() {
	case pg.VariableSetKind_VAR_RESET_ALL:
		w.change(x, SettingChange{Name: "*"})
	case pg.VariableSetKind_VAR_RESET, pg.VariableSetKind_VAR_SET_DEFAULT:
		// Back to what the session began with: for a role that is Weir's own login.
		if name != "role" && name != "session_authorization" {
			w.setting(name)
		}
		w.change(x, SettingChange{Name: name, Local: x.GetIsLocal()})
	case pg.VariableSetKind_VAR_SET_VALUE:
		w.setValue(x, name)
	case pg.VariableSetKind_VAR_SET_MULTI:
		w.setMulti(x, name)
	default:
		w.fail("a form of SET that weir does not know")
	}
}

func (w *walker) change(m proto.Message, c SettingChange) {
	w.effects(m, func(e *Effects) { e.Settings = append(e.Settings, c) })
}

// setting adds the access that changing a setting needs.
func (w *walker) setting(name string) {
	if !harmlessSetting(name) {
		w.add(flow.Set, settingResource(name))
	}
}

func (w *walker) setValue(x *pg.VariableSetStmt, name string) {
	change := SettingChange{Name: name, Local: x.GetIsLocal(), Values: []string{}}
	for _, n := range x.GetArgs() {
		v, ok := literal(n)
		change.Unsure = change.Unsure || !ok
		change.Values = append(change.Values, v)
		w.node(n)
	}
	switch name {
	case "role", "session_authorization":
		w.setRole(change)
	default:
		w.setting(name)
	}
	w.change(x, change)
}

// setRole: becoming somebody else is a set on that role; NONE is the way back.
func (w *walker) setRole(c SettingChange) {
	switch {
	case c.Unsure || len(c.Values) != 1:
		w.add(flow.Unknown, "")
	case c.Name == "role" && asciiLower(c.Values[0]) == "none":
	default:
		w.add(flow.Set, roleResource(c.Values[0]))
	}
}

// setMulti is SET TRANSACTION, SET SESSION CHARACTERISTICS and SET TRANSACTION
// SNAPSHOT.
func (w *walker) setMulti(x *pg.VariableSetStmt, name string) {
	if name == "transaction snapshot" {
		w.add(flow.Set, settingResource("transaction_snapshot"))
		return
	}
	prefix := ""
	if name == "session characteristics" {
		prefix = "default_"
	}
	for _, n := range x.GetArgs() {
		o := n.GetDefElem()
		option := prefix + strings.ToLower(o.GetDefname())
		w.setting(option)
		c := SettingChange{Name: option, Local: prefix == "", Values: []string{}}
		v, ok := literal(o.GetArg())
		c.Unsure, c.Values = !ok, append(c.Values, v)
		w.change(x, c)
	}
}

// setConfig is set_config(name, value, is_local) wherever it stands. When it
// runs, and how often, is certain only in a plain SELECT of it: plainConfig.
func (w *walker) setConfig(f *pg.FuncCall) {
	c, ok := configChange(f)
	if !ok {
		w.add(flow.Unknown, "")
		w.st.Effects.UnsureSearchPath = true
		return
	}
	switch c.Name {
	case "role", "session_authorization":
		w.setRole(c)
	case standardStrings:
		w.stringsStay(c)
	default:
		w.setting(c.Name)
		if harmlessSetting(c.Name) {
			w.carries(f.GetArgs(), flow.Access{Verb: flow.Set, Resource: settingResource(c.Name)})
		}
	}
	c.Unsure = true
	w.st.Effects.Settings = append(w.st.Effects.Settings, c)
	w.st.Effects.UnsureSearchPath = w.st.Effects.UnsureSearchPath || c.Name == "search_path" || c.Name == "role" || c.Name == "session_authorization"
}

// configChange reads the arguments of set_config; false when the name of the
// setting does not show.
func configChange(f *pg.FuncCall) (SettingChange, bool) {
	args := f.GetArgs()
	if len(args) != 3 || f.GetFuncVariadic() {
		return SettingChange{}, false
	}
	name, ok := literal(args[0])
	if !ok {
		return SettingChange{}, false
	}
	c := SettingChange{Name: strings.ToLower(name), Values: []string{}}
	local, okLocal := literal(args[2])
	switch asciiLower(local) {
	case "t", "true", "y", "yes", "on", "1":
		c.Local = true
	case "f", "false", "n", "no", "off", "0":
	default:
		okLocal = false
	}
	value, okValue := literal(args[1])
	c.Unsure = !okLocal || !okValue
	switch {
	case !okValue:
	case c.Name == "search_path":
		path, ok := SplitSearchPath(value)
		c.Values, c.Unsure = path, c.Unsure || !ok
	default:
		c.Values = append(c.Values, value)
	}
	return c, true
}

// plainConfig recognises SELECT set_config('a', 'b', false), with nothing else
// around it: drivers and pg_dump set what they need that way, and it takes
// effect for certain.
func (w *walker) plainConfig(s *pg.SelectStmt) {
	if w.top != proto.Message(s) || len(w.st.Effects.Settings) == 0 || !plain(s) {
		return
	}
	changes := make([]SettingChange, 0, len(s.GetTargetList()))
	for _, n := range s.GetTargetList() {
		f := n.GetResTarget().GetVal().GetFuncCall()
		schema, name, _ := w.functionName(f.GetFuncname())
		if name != "set_config" || schema != "" && schema != pgCatalog {
			return
		}
		c, ok := configChange(f)
		if !ok || c.Unsure {
			return
		}
		changes = append(changes, c)
	}
	if len(changes) != len(w.st.Effects.Settings) || w.st.sideEffects { // shadowed by somebody's function
		return
	}
	w.st.Effects.Settings = changes
	w.st.Effects.UnsureSearchPath = false
}

// plain reports whether a SELECT has nothing but a target list.
func plain(s *pg.SelectStmt) bool {
	return len(s.GetDistinctClause()) == 0 && s.GetIntoClause() == nil && len(s.GetFromClause()) == 0 &&
		s.GetWhereClause() == nil && len(s.GetGroupClause()) == 0 && s.GetHavingClause() == nil &&
		len(s.GetWindowClause()) == 0 && len(s.GetValuesLists()) == 0 && len(s.GetSortClause()) == 0 &&
		s.GetLimitOffset() == nil && s.GetLimitCount() == nil && s.GetWithClause() == nil &&
		s.GetLarg() == nil && s.GetRarg() == nil
}
