package sqlmeta

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// TestRealServer holds the lists against a real PostgreSQL, and lets the
// statements of a real psql pass.
func TestRealServer(t *testing.T) {
	server := postgres.For(t, postgres.Config{Shop: true, InitSQL: initSQL})
	q := func(t *testing.T, sql string) []string {
		t.Helper()
		out, err := server.Query(context.Background(), "shop", sql)
		if err != nil {
			t.Fatal(err)
		}
		if out == "" {
			return nil
		}
		return strings.Split(out, "\n")
	}
	t.Run("functions", func(t *testing.T) { checkFunctions(t, q) })
	t.Run("relations", func(t *testing.T) { checkRelations(t, q) })
	t.Run("settings", func(t *testing.T) { checkSettings(t, q) })
	catalog := realCatalog(t, q)
	t.Run("psql", func(t *testing.T) { checkPsql(t, server, catalog) })
	t.Run("drivers", func(t *testing.T) { checkDrivers(t, q, catalog) })
}

// initSQL makes one of everything that \d describes.
const initSQL = `\connect shop
create table shop.parted (id int, at date, n int generated always as (id * 2) stored) partition by range (at);
create table shop.parted_1 partition of shop.parted for values from ('2025-01-01') to ('2026-01-01');
create index on shop.parted (id);
create sequence shop.s owned by shop.parted.id;
create materialized view shop.totals as select customer_id, sum(total) as total from shop.orders group by 1;
create statistics shop.st on id, customer_id from shop.orders;
create policy p on shop.orders using (customer_id > 0);
alter table shop.orders enable row level security;
create function shop.touch() returns trigger language plpgsql as 'begin return new; end';
create trigger touch before update on shop.orders for each row execute function shop.touch();
create publication pub for table shop.orders;
create type shop.mood as enum ('sad', 'happy');
create domain shop.positive as int check (value > 0);
create function shop.upper(shop.mood) returns text language sql as $$ select 'x' $$;
`

type querier func(*testing.T, string) []string

// dangerous is what must never get on the list, whatever its reason to be there.
var dangerous = regexp.MustCompile(`^(pg_read_|pg_ls_|pg_stat_file|lo_|lo(read|write)|pg_logical_|pg_replication_|` +
	`pg_(create|drop|copy)_|pg_terminate|pg_cancel|pg_reload|pg_rotate|pg_switch|pg_promote|pg_backup|pg_start_backup|` +
	`pg_stop_backup|pg_export|pg_import|binary_upgrade|pg_stat_get_|pg_stat_reset|pg_hba|pg_show|pg_log_|.*_to_xml|` +
	`ts_stat|ts_rewrite|set_config|setseed|pg_sleep|pg_advisory|current_setting|nextval|setval|pg_notify|dblink|pg_wal_replay|currtid|brin_|gin_)`)

// volatile are the harmless ones that the server calls volatile: each looked at
// by a person.
var volatile = set(`clock_timestamp currval lastval gen_random_uuid random timeofday current_query
	pg_blocking_pids
	pg_collation_actual_version pg_database_collation_actual_version pg_current_wal_flush_lsn
	pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_size pg_indexes_size pg_is_in_recovery
	pg_jit_available pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
	pg_notification_queue_usage pg_partition_ancestors pg_partition_tree pg_relation_size
	pg_safe_snapshot_blocking_pids pg_table_size
	pg_tablespace_size pg_total_relation_size pg_xact_commit_timestamp pg_xact_status txid_status`)

func checkFunctions(t *testing.T, q querier) {
	kinds := make(map[string]string)
	for _, line := range q(t, `select proname, string_agg(distinct provolatile::text, '' order by provolatile::text), max(oid)
		from pg_catalog.pg_proc where pronamespace = 'pg_catalog'::regnamespace group by 1`) {
		f := strings.Split(line, "|")
		kinds[f[0]] = f[1]
		if oid, _ := strconv.Atoi(f[2]); oid >= firstUserOID {
			t.Errorf("%s has an overload that did not come with the server", f[0])
		}
	}
	for name := range harmlessFunctions {
		kind, ok := kinds[name]
		switch {
		case !ok:
			t.Errorf("harmless function %s does not exist", name)
		case dangerous.MatchString(name):
			t.Errorf("harmless function %s is of a dangerous kind", name)
		case strings.Contains(kind, "v") && !volatile[name]:
			t.Errorf("harmless function %s is volatile and nobody has said why it may be", name)
		}
	}
	for name := range newerFunctions {
		if _, ok := kinds[name]; ok {
			t.Errorf("%s is not newer than this server", name)
		}
	}
	for name := range volatile {
		if !strings.Contains(kinds[name], "v") {
			t.Errorf("%s is not volatile", name)
		}
	}
	for _, list := range []map[string]bool{carrierFunctions, lockFunctions, unsafeFunctions} {
		for name := range list {
			if _, ok := kinds[name]; !ok {
				t.Errorf("function %s does not exist", name)
			}
			if harmlessBuiltIn(name) {
				t.Errorf("function %s is on two lists", name)
			}
		}
	}
	for _, name := range q(t, `select proname from pg_catalog.pg_proc where pronamespace = 'information_schema'::regnamespace`) {
		kinds["information_schema."+name] = "i"
	}
	for name := range informationFunctions {
		if kinds["information_schema."+name] == "" {
			t.Errorf("information_schema.%s does not exist", name)
		}
	}
}

func checkRelations(t *testing.T, q querier) {
	known := make(map[string]bool)
	for _, name := range q(t, `select relname from pg_catalog.pg_class where relnamespace = 'pg_catalog'::regnamespace and relkind in ('r', 'v')`) {
		known[name] = true
		if harmlessRelations[name] == dataRelations[name] {
			t.Errorf("pg_catalog.%s must be on one of the two lists", name)
		}
	}
	newer := set(`pg_stat_checkpointer pg_stat_io pg_wait_events`)
	for name := range harmlessRelations {
		if !known[name] && !newer[name] {
			t.Errorf("harmless relation %s does not exist", name)
		}
	}
	// A relation that not everybody may read on a fresh server has its reason.
	for _, name := range q(t, `set role weir_app; select relname from pg_catalog.pg_class where relnamespace = 'pg_catalog'::regnamespace
		and relkind in ('r', 'v') and not has_table_privilege(oid, 'select')`) {
		if harmlessRelations[name] {
			t.Errorf("%s is harmless here and not readable for everybody on the server", name)
		}
	}
	for name := range informationSecrets {
		if len(q(t, `select 1 from pg_catalog.pg_class where relnamespace = 'information_schema'::regnamespace and relname = '`+name+`'`)) != 1 {
			t.Errorf("information_schema.%s does not exist", name)
		}
	}
}

func checkSettings(t *testing.T, q querier) {
	all := make(map[string]bool)
	for _, name := range q(t, `select lower(name) from pg_catalog.pg_settings`) {
		all[name] = true
	}
	newer := set(`transaction_timeout seed`) // seed is not in the view
	for name := range harmlessSettings {
		if !all[name] && !newer[name] {
			t.Errorf("harmless setting %s does not exist", name)
		}
	}
	for _, name := range q(t, `set role weir_app; select name from pg_catalog.pg_settings`) {
		delete(all, strings.ToLower(name))
	}
	for name := range all { // those that superusers only may read
		if !secretSetting(name) {
			t.Errorf("setting %s is shown to superusers only and not secret here", name)
		}
	}
}

// realCatalog reads the server's catalogue, in as few words as the tests need.
func realCatalog(t *testing.T, q querier) *Catalog {
	var relations []*Relation
	for _, line := range q(t, `select c.oid, n.nspname, c.relname, c.relkind, coalesce(string_agg(case when a.attisdropped then '' else a.attname end, ',' order by attnum), '')
		from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 where c.relkind not in ('i', 'I', 't') group by 1, 2, 3, 4`) {
		f := strings.Split(line, "|")
		oid, _ := strconv.ParseUint(f[0], 10, 32)
		relations = append(relations, &Relation{OID: uint32(oid), Schema: f[1], Name: f[2], Kind: f[3][0], Columns: strings.Split(f[4], ",")})
	}
	var functions []Function
	for _, line := range q(t, `select p.oid, n.nspname, p.proname from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace`) {
		f := strings.Split(line, "|")
		oid, _ := strconv.ParseUint(f[0], 10, 32)
		functions = append(functions, Function{OID: uint32(oid), Schema: f[1], Name: f[2], BuiltIn: oid < firstUserOID})
	}
	return NewCatalog(1, q(t, `select nspname from pg_catalog.pg_namespace`), relations, functions)
}

// described are psql's commands that need no more than connect.
var described = strings.Fields(`\d \d+ \dt \dt+ \dt+_*.* \di+ \ds+ \dv+ \dm+ \dE+ \d_shop.customers \d+_shop.payments
	\d+_shop.orders \d+_shop.customer_payments \d_shop.s \d+_shop.parted \d_shop.parted_1 \d+_shop.totals \d+_pg_class
	\df \df+_shop.* \df_* \da \do \dT \dT+_shop.* \dn \dn+ \dp \dp_shop.* \z \ddp \dD \dD+_shop.* \dC \dc \dO \dF \dF+ \dFd
	\dFp \dFt \dx \dx+ \dy \dL \dL+ \dA \dA+ \dAc \dAf \dAo \dAp \db \db+ \dg \du+ \drds \des+ \dew+ \det+
	\dRp \dRp+ \dX \dP \dP+ \dPi \dd \dS_pg_catalog.pg_class \l \l+ \sf_shop.customer_total \sf+_shop.touch
	\sv_shop.customer_payments \d_no_such_thing \dt_shop.* \d_shop.*`)

// inspecting are those that look at what the contract wants a rule for.
var inspecting = map[string]string{
	`\deu+`:     "select pg_catalog.pg_user_mappings",
	`\dRs`:      "select pg_catalog.pg_subscription",
	`\dl`:       "select pg_catalog.pg_largeobject_metadata",
	`\dconfig`:  "select pg_catalog.pg_settings",
	`\dconfig+`: "select pg_catalog.pg_settings",
}

func checkPsql(t *testing.T, server *postgres.Server, catalog *Catalog) {
	commands := make([]string, 0, len(described)+len(inspecting))
	for _, c := range described {
		commands = append(commands, strings.Replace(c, "_", " ", 1))
	}
	for c := range inspecting {
		commands = append(commands, c)
	}
	sent := psqlQueries(t, server, commands)
	statements := 0
	for _, command := range commands {
		want, inspects := inspecting[command]
		for _, sql := range sent[command] {
			statements++
			if !inspects {
				expectHarmless(t, "psql "+command, sql, catalog)
				continue
			}
			c := testContext{session: testSession(), catalog: catalog}
			if got := fmt.Sprint(mustAnalyze(sql, c)[0].Accesses); !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %s", command, got, want)
			}
		}
	}
	if statements < 150 {
		t.Errorf("psql sent only %d statements", statements)
	}
}

var echoed = regexp.MustCompile(`(?s)\*{9} QUERY \*{10}\n(.*?)\n\*{26}`)

// psqlQueries runs backslash commands in one psql and returns the statements
// behind each.
func psqlQueries(t *testing.T, server *postgres.Server, commands []string) map[string][]string {
	t.Helper()
	const mark = "#### "
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "\\echo '%s%s'\n%s\n", mark, strings.ReplaceAll(c, `\`, `\\`), c)
	}
	cmd := exec.Command("psql", "-X", "-E", "-h", server.Socket, "-p", strconv.Itoa(int(server.Port)),
		"-U", postgres.Superuser, "-d", "shop")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	list := make(map[string][]string)
	for _, part := range strings.Split(string(out), mark)[1:] {
		command, rest, _ := strings.Cut(part, "\n")
		for _, m := range echoed.FindAllStringSubmatch(rest, -1) {
			list[command] = append(list[command], m[1])
		}
	}
	for _, c := range commands {
		if len(list[c]) == 0 {
			t.Errorf("psql %s sent nothing", c)
		}
	}
	return list
}

func expectHarmless(t *testing.T, who, sql string, catalog *Catalog) {
	t.Helper()
	for _, c := range []*Catalog{catalog, nil} {
		context := testContext{session: testSession(), catalog: c}
		tree, err := parse(sql)
		if err != nil {
			t.Errorf("%s: %v: %s", who, err, sql)
			return
		}
		for _, st := range Analyze(tree, sql, context.session, context.catalog) {
			if len(st.Accesses) != 1 || st.Accesses[0].Verb != flow.Connect {
				t.Errorf("%s (catalogue: %v): %v: %s", who, c != nil, st.Accesses, st.Text)
			}
		}
	}
}

// checkDrivers: what drivers and ORMs send by themselves runs on the server and
// is harmless.
func checkDrivers(t *testing.T, q querier, catalog *Catalog) {
	for _, sql := range driverStatements(t) {
		if !strings.Contains(sql, "$1") && !strings.Contains(sql, "_pg3_1") {
			q(t, sql)
		}
		expectHarmless(t, "driver", sql, catalog)
	}
}
