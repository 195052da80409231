package sqlmeta

import "strings"

// harmlessSettings shape only display or the session's own limits, or are sent
// by every driver: SET, RESET and set_config of them need no rule beyond
// connect, as long as no data gets into the value (see carrier). client_encoding
// changes what text means and stays harmless because Weir follows it;
// standard_conforming_strings only when it stays as it is (see stringsStay); jit
// changes only how the session's own plans run, and asyncpg turns it off while it
// connects.
var harmlessSettings = set(`
	application_name
	bytea_output
	client_connection_check_interval
	client_encoding
	client_min_messages
	datestyle
	default_transaction_deferrable
	default_transaction_isolation
	default_transaction_read_only
	escape_string_warning
	extra_float_digits
	idle_in_transaction_session_timeout
	idle_session_timeout
	intervalstyle
	jit
	lc_monetary
	lc_numeric
	lc_time
	lock_timeout
	quote_all_identifiers
	seed
	standard_conforming_strings
	statement_timeout
	tcp_keepalives_count
	tcp_keepalives_idle
	tcp_keepalives_interval
	tcp_user_timeout
	timezone
	transaction_deferrable
	transaction_isolation
	transaction_read_only
	transaction_timeout
	xmlbinary
	xmloption
`)

// secretSettings can hold a password, or show where the server keeps its files:
// those that PostgreSQL shows to superusers only, and the commands that it runs.
// Weir's login may be a superuser, so reading them is a select on pg_settings.
var secretSettings = set(`
	archive_cleanup_command
	archive_command
	config_file
	data_directory
	dynamic_library_path
	extension_control_path
	extension_destdir
	external_pid_file
	hba_file
	ident_file
	jit_provider
	krb_server_keyfile
	local_preload_libraries
	log_directory
	log_filename
	oauth_validator_libraries
	primary_conninfo
	primary_slot_name
	promote_trigger_file
	recovery_end_command
	restore_command
	session_preload_libraries
	shared_preload_libraries
	ssl_ca_file
	ssl_cert_file
	ssl_ciphers
	ssl_crl_dir
	ssl_crl_file
	ssl_dh_params_file
	ssl_ecdh_curve
	ssl_key_file
	ssl_max_protocol_version
	ssl_min_protocol_version
	ssl_passphrase_command
	ssl_tls13_ciphers
	unix_socket_directories
`)

func harmlessSetting(name string) bool { return harmlessSettings[name] }

func secretSetting(name string) bool { return secretSettings[name] }

// set makes a set of the words of a text.
func set(words string) map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// SplitSearchPath cuts the text form of search_path into schemas, as the server
// does (SplitIdentifierString): unquoted names in lower case, "" doubled inside
// quotes. False when the text has no such form.
func SplitSearchPath(text string) ([]string, bool) {
	out := []string{}
	rest := strings.TrimLeft(text, pathSpace)
	if rest == "" {
		return out, true
	}
	for {
		var name string
		var ok bool
		if name, rest, ok = pathName(rest); !ok {
			return nil, false
		}
		out = append(out, name)
		rest = strings.TrimLeft(rest, pathSpace)
		if rest == "" {
			return out, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		rest = strings.TrimLeft(rest[1:], pathSpace)
	}
}

const pathSpace = " \t\n\r\f\v"

func pathName(s string) (name, rest string, ok bool) {
	if s == "" {
		return "", "", false
	}
	if s[0] != '"' {
		end := strings.IndexAny(s, ","+pathSpace)
		if end < 0 {
			end = len(s)
		}
		return asciiLower(s[:end]), s[end:], end > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), s[i+1:], true
	}
	return "", "", false
}

// asciiLower folds as the server does for an identifier in UTF-8.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
