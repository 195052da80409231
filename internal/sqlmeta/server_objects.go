package sqlmeta

import (
	"maps"
	"slices"
)

// firstServerOID is where the made-up identifiers of the server's own objects begin.
const firstServerOID = 1000

// serverObjects are the server's own relations and functions as far as this package
// has their names, for catalogues that no server was asked for. Their columns are not
// known. What is missing from them is what nothing decides upon.
func serverObjects() (relations []*Relation, functions []Function) {
	oid := uint32(firstServerOID)
	relation := func(schema string, kind byte, names map[string]bool) {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			oid++
			relations = append(relations, &Relation{OID: oid, Schema: schema, Name: name, Kind: kind})
		}
	}
	relation(pgCatalog, 'r', harmlessRelations)
	relation(pgCatalog, 'r', dataRelations)
	relation(infoSchema, 'v', informationRelations)
	seen := make(map[string]bool)
	function := func(schema, language string, names map[string]bool) {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if seen[schema+"."+name] {
				continue
			}
			seen[schema+"."+name] = true
			oid++
			functions = append(functions, Function{OID: oid, Schema: schema, Name: name, Language: language, Volatility: 'v', BuiltIn: true})
		}
	}
	for _, list := range []map[string]bool{harmlessFunctions, newerFunctions, carrierFunctions, lockFunctions, unsafeFunctions, actingFunctions} {
		function(pgCatalog, "internal", list)
	}
	function(infoSchema, "sql", informationFunctions)
	return relations, functions
}

// informationRelations of information_schema (manual, chapter 37).
var informationRelations = set(`
	_pg_foreign_data_wrappers _pg_foreign_servers _pg_foreign_table_columns _pg_foreign_tables _pg_user_mappings
	administrable_role_authorizations applicable_roles attributes character_sets check_constraint_routine_usage
	check_constraints collation_character_set_applicability collations column_column_usage column_domain_usage
	column_options column_privileges column_udt_usage columns constraint_column_usage constraint_table_usage
	data_type_privileges domain_constraints domain_udt_usage domains element_types enabled_roles
	foreign_data_wrapper_options foreign_data_wrappers foreign_server_options foreign_servers
	foreign_table_options foreign_tables information_schema_catalog_name key_column_usage parameters
	referential_constraints role_column_grants role_routine_grants role_table_grants role_udt_grants
	role_usage_grants routine_column_usage routine_privileges routine_routine_usage routine_sequence_usage
	routine_table_usage routines schemata sequences sql_features sql_implementation_info sql_parts sql_sizing
	table_constraints table_privileges tables transforms triggered_update_columns triggers udt_privileges
	usage_privileges user_defined_types user_mapping_options user_mappings view_column_usage view_routine_usage
	view_table_usage views
`)

// actingFunctions of pg_catalog read or change what is no table's: files, large
// objects, other sessions, the server. None is harmless; see harmlessFunctions.
var actingFunctions = set(`
	lo_close lo_creat lo_create lo_export lo_from_bytea lo_get lo_import lo_lseek lo_lseek64 lo_open lo_put
	lo_tell lo_tell64 lo_truncate lo_truncate64 lo_unlink
	pg_backup_start pg_backup_stop pg_cancel_backend pg_copy_logical_replication_slot
	pg_copy_physical_replication_slot pg_create_logical_replication_slot pg_create_physical_replication_slot
	pg_create_restore_point pg_current_logfile pg_drop_replication_slot pg_event_trigger_ddl_commands
	pg_event_trigger_dropped_objects pg_export_snapshot pg_get_backend_memory_contexts
	pg_hba_file_rules pg_import_system_collations pg_log_backend_memory_contexts
	pg_logical_emit_message pg_logical_slot_get_binary_changes pg_logical_slot_get_changes
	pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes pg_ls_archive_statusdir pg_ls_dir
	pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_tmpdir pg_ls_waldir pg_notify
	pg_promote pg_read_binary_file pg_read_file pg_read_file_old pg_reload_conf pg_replication_origin_advance
	pg_replication_origin_create pg_replication_origin_drop pg_replication_slot_advance pg_rotate_logfile
	pg_show_all_file_settings pg_show_all_settings pg_sequence_last_value pg_stat_clear_snapshot
	pg_stat_file pg_stat_get_activity pg_stat_get_backend_activity pg_stat_get_wal_receiver pg_stat_get_wal_senders
	pg_stat_reset pg_stat_reset_shared pg_stat_reset_single_table_counters pg_switch_wal pg_terminate_backend
	pg_wal_replay_pause pg_wal_replay_resume
`)
