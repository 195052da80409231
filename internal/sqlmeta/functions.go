package sqlmeta

// harmlessFunctions are functions of pg_catalog that need no rule beyond
// connect: they read no data of others, change nothing, touch no file and run no
// SQL text. Every overload of a name is harmless. A test holds
// the list against a real server's pg_proc.
//
// Left out on purpose, so `call` on function:pg_catalog.NAME, among others:
// files (pg_read_*, pg_ls_*, pg_stat_file, lo_import), large objects, SQL text
// (query_to_xml and its family, ts_stat, ts_rewrite, cursor_to_xml,
// currtid2), other sessions (pg_terminate_backend, pg_cancel_backend,
// pg_stat_get_activity), the server (pg_reload_conf, pg_switch_wal, backup,
// replication, slots, pg_logical_*), sequences that move (nextval, setval),
// snapshots that others import (pg_export_snapshot), and counters' resets.
var harmlessFunctions = set(`
	abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling
	cos cosd cosh cot cotd degrees div exp factorial floor gcd lcm ln log log10 min_scale
	mod pi pow power radians random round scale sign sin sind sinh sqrt tan tand
	tanh trim_scale trunc width_bucket

	ascii bit_count bit_length btrim char_length character_length chr concat concat_ws
	convert convert_from convert_to decode encode format get_bit get_byte initcap
	is_normalized left length like_escape lower lpad ltrim md5 normalize octet_length
	overlay parse_ident pg_client_encoding position quote_ident quote_literal
	quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches
	regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat
	replace reverse right rpad rtrim set_bit set_byte sha224 sha256 sha384 sha512
	similar_escape similar_to_escape split_part starts_with string_to_array
	string_to_table strpos substr substring text textcat to_ascii to_hex translate
	unistr upper

	bit bool bpchar char cidr date float4 float8 int2 int4 int8 interval macaddr
	macaddr8 money name numeric oid path point polygon box circle line lseg regclass
	time timestamp timestamptz timetz varbit varchar xml

	age clock_timestamp date_bin date_part date_trunc extract isfinite justify_days
	justify_hours justify_interval make_date make_interval make_time make_timestamp
	make_timestamptz now overlaps statement_timestamp timeofday timezone to_char to_date
	to_number to_timestamp transaction_timestamp

	array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop
	covar_samp every json_agg json_object_agg jsonb_agg jsonb_object_agg max min mode
	percentile_cont percentile_disc range_agg range_intersect_agg regr_avgx regr_avgy
	regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev
	stddev_pop stddev_samp string_agg sum var_pop var_samp variance xmlagg
	cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank
	rank row_number

	array_append array_cat array_dims array_fill array_length array_lower array_ndims
	array_position array_positions array_prepend array_remove array_replace
	array_to_string array_upper cardinality generate_series generate_subscripts
	num_nonnulls num_nulls trim_array unnest

	datemultirange daterange int4multirange int4range int8multirange int8range isempty
	lower_inc lower_inf multirange nummultirange numrange range_merge tsmultirange tsrange
	tstzmultirange tstzrange upper_inc upper_inf

	array_to_json json_array_elements json_array_elements_text json_array_length
	json_build_array json_build_object json_each json_each_text json_extract_path
	json_extract_path_text json_object json_object_keys json_populate_record
	json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof
	jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
	jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path
	jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys jsonb_path_exists
	jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
	jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first
	jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record
	jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls
	jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb

	xml_is_well_formed xml_is_well_formed_content xml_is_well_formed_document xmlcomment
	xmlconcat2 xmlexists xpath xpath_exists

	array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector numnode
	phraseto_tsquery plainto_tsquery querytree setweight strip to_tsquery to_tsvector
	ts_debug ts_delete ts_filter ts_headline ts_lexize ts_parse ts_rank ts_rank_cd
	ts_token_type tsquery_phrase tsvector_to_array websearch_to_tsquery

	abbrev broadcast family host hostmask inet_merge inet_same_family macaddr8_set7bit
	masklen netmask network set_masklen

	area bound_box center diagonal diameter height isclosed ishorizontal isopen
	isparallel isperp isvertical npoints pclose popen radius slope width

	cash_words enum_first enum_last enum_range gen_random_uuid

	hash_array hash_record hashbpchar hashint2 hashint4 hashint8 hashname hashtext
	hashtextextended hashint8extended

	aclcontains acldefault aclexplode makeaclitem col_description current_database
	current_query current_schema current_schemas current_user session_user getdatabaseencoding
	format_type has_any_column_privilege has_column_privilege has_database_privilege
	has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
	has_parameter_privilege has_schema_privilege has_sequence_privilege
	has_server_privilege has_table_privilege has_tablespace_privilege has_type_privilege
	inet_client_addr inet_client_port inet_server_addr inet_server_port obj_description
	oidvectortypes pg_backend_pid pg_blocking_pids pg_char_to_encoding pg_collation_for
	pg_collation_actual_version pg_database_collation_actual_version
	pg_collation_is_visible pg_column_compression pg_column_is_updatable pg_column_size
	pg_conf_load_time pg_conversion_is_visible pg_current_snapshot pg_current_xact_id
	pg_current_xact_id_if_assigned pg_describe_object pg_encoding_max_length
	pg_encoding_to_char pg_extension_update_paths pg_function_is_visible
	pg_get_constraintdef pg_get_expr pg_get_function_arg_default pg_get_function_arguments
	pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody
	pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_object_address
	pg_get_partition_constraintdef pg_get_partkeydef pg_get_publication_tables
	pg_get_replica_identity_index pg_get_ruledef pg_get_serial_sequence
	pg_get_statisticsobjdef pg_get_statisticsobjdef_columns
	pg_get_statisticsobjdef_expressions pg_get_triggerdef pg_get_userbyid pg_get_viewdef
	pg_has_role pg_identify_object pg_identify_object_as_address
	pg_index_column_has_property pg_index_has_property pg_indexam_has_property
	pg_is_in_recovery pg_is_other_temp_schema pg_jit_available pg_listening_channels
	pg_my_temp_schema pg_notification_queue_usage pg_opclass_is_visible
	pg_operator_is_visible pg_opfamily_is_visible pg_options_to_table pg_partition_ancestors
	pg_partition_root pg_partition_tree pg_postmaster_start_time
	pg_relation_is_publishable pg_relation_is_updatable
	pg_safe_snapshot_blocking_pids pg_sequence_parameters pg_settings_get_flags
	pg_statistics_obj_is_visible pg_table_is_visible pg_tablespace_databases
	pg_tablespace_location pg_trigger_depth pg_ts_config_is_visible
	pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible
	pg_type_is_visible pg_typeof row_security_active shobj_description to_regclass
	to_regcollation to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure
	to_regrole to_regtype version

	pg_database_size pg_indexes_size pg_relation_size pg_size_bytes pg_size_pretty
	pg_table_size pg_tablespace_size pg_total_relation_size

	mxid_age pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin pg_visible_in_snapshot
	pg_xact_commit_timestamp pg_xact_status txid_current txid_current_if_assigned
	txid_current_snapshot txid_snapshot_xip txid_snapshot_xmax txid_snapshot_xmin
	txid_status txid_visible_in_snapshot

	pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn
	pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
	pg_wal_lsn_diff

	currval lastval
`)

// carrierFunctions leave something behind, in the session or outside of it, that
// tells what they were called with: the next random() after a seed, locks that are
// held no more, the time that a statement takes. They are harmless only where no
// data can get into the call; see carries.
var carrierFunctions = set(`
	pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared
	pg_sleep pg_sleep_for pg_sleep_until setseed
`)

// newerFunctions are harmless as well; PostgreSQL 15 does not have them.
var newerFunctions = set(`
	any_value array_reverse array_sample array_shuffle array_sort casefold crc32 crc32c date_add
	date_subtract erf erfc gamma jsonb_agg_strict lgamma pg_basetype pg_get_acl
	pg_input_error_info pg_input_is_valid random_normal system_user to_bin to_oct
	to_regtypemod unicode_assigned unicode_version icu_unicode_version
	uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7
`)

// informationFunctions of information_schema are what its views and JDBC's
// metadata use.
var informationFunctions = set(`
	_pg_char_max_length _pg_char_octet_length _pg_datetime_precision _pg_expandarray
	_pg_index_position _pg_interval_type _pg_numeric_precision
	_pg_numeric_precision_radix _pg_numeric_scale _pg_truetypid _pg_truetypmod
`)

// lockFunctions are decided as `lock`, not as `call`.
var lockFunctions = set(`
	pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
	pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock
	pg_try_advisory_xact_lock_shared
`)

// unsafeFunctions of pg_catalog are not harmless; they are listed only so that a
// name finds its schema without a catalogue. Names that begin with pg_ or lo_
// need not be.
var unsafeFunctions = set(`
	binary_upgrade_create_empty_extension brin_desummarize_range brin_summarize_new_values
	brin_summarize_range currtid2 current_setting cursor_to_xml cursor_to_xmlschema
	database_to_xml database_to_xml_and_xmlschema database_to_xmlschema
	gin_clean_pending_list loread lowrite nextval query_to_xml
	query_to_xml_and_xmlschema query_to_xmlschema schema_to_xml
	schema_to_xml_and_xmlschema schema_to_xmlschema set_config setval table_to_xml
	table_to_xml_and_xmlschema table_to_xmlschema ts_rewrite ts_stat
`)

func harmlessBuiltIn(name string) bool { return harmlessFunctions[name] || newerFunctions[name] }

// systemFunction guesses, without a catalogue, whether pg_catalog has a function
// of this name.
func systemFunction(name string) bool {
	if harmlessBuiltIn(name) || carrierFunctions[name] || unsafeFunctions[name] {
		return true
	}
	return len(name) > 3 && (name[:3] == "pg_" || name[:3] == "lo_")
}

// callee is a function that a name can mean.
type callee struct {
	schema, name string
	builtIn      bool
}

func (f callee) qualified() string { return qualified(f.schema, f.name) }

func (f callee) harmless() bool {
	if !f.builtIn {
		return false
	}
	return f.schema == pgCatalog && harmlessBuiltIn(f.name) ||
		f.schema == infoSchema && informationFunctions[f.name]
}

// callees is every function that the name can mean; PostgreSQL picks by argument
// types among all schemas of the path, so a harmless name with an overload
// elsewhere on the path means both. found is false when the catalogue knows none.
func (s *Session) callees(c *Catalog, schema, name string) (out []callee, found bool) {
	if schema != "" {
		return c.calleesIn(schema, name)
	}
	for _, o := range c.functionsNamed(name) {
		if o.schema == pgCatalog || !s.Certain || s.onPath(o.schema) {
			out = append(out, callee{o.schema, name, o.builtIn})
		}
	}
	if !c.hasFunctions() && systemFunction(name) {
		out = append(out, callee{pgCatalog, name, true})
	}
	if len(out) > 0 {
		return out, true
	}
	return []callee{{s.target(c), name, false}}, false
}

func (c *Catalog) calleesIn(schema, name string) ([]callee, bool) {
	for _, o := range c.functionsNamed(name) {
		if o.schema == schema {
			return []callee{{schema, name, o.builtIn}}, true
		}
	}
	if c.hasFunctions() {
		return []callee{{schema, name, false}}, false
	}
	builtIn := schema == pgCatalog && systemFunction(name) || schema == infoSchema && informationFunctions[name]
	return []callee{{schema, name, builtIn}}, builtIn
}

func (s *Session) onPath(schema string) bool {
	for _, p := range s.SearchPath {
		if p == schema {
			return true
		}
	}
	return false
}
