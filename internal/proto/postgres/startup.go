package postgres

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgproto3/v2"
)

// Codes that a startup packet may begin with (libpq/pqcomm.h).
const (
	codeSSLRequest    = 80877103
	codeGSSENCRequest = 80877104
	codeCancelRequest = 80877102
	protocolMajor     = 3
	version30         = protocolMajor << 16
)

// firstByteTLS begins a TLS handshake record: a client that negotiates directly.
const firstByteTLS = 0x16

// alpn is the protocol that direct TLS has to name (PostgreSQL manual, 55.2.10).
const alpn = "postgresql"

// startup is what a client asks for.
type startup struct {
	database  string
	params    map[string]string // for the backend; names in lower case
	name      string            // application_name
	negotiate []byte            // NegotiateProtocolVersion, nil when none is due
	greeted   bool              // the login was called done while the client waited
}

// cancelKey is what BackendKeyData hands out and CancelRequest brings back.
type cancelKey struct {
	pid, secret uint32
}

// startupError is a startup packet that is refused in words for the user.
type startupError struct {
	code, message string
}

func (e *startupError) Error() string { return e.message }

// parseCancel reads a CancelRequest, without its length.
func parseCancel(b []byte) (cancelKey, bool) {
	if len(b) != 12 || binary.BigEndian.Uint32(b) != codeCancelRequest {
		return cancelKey{}, false
	}
	return cancelKey{binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])}, true
}

// parseStartup reads a StartupMessage, without its length. Versions 3.x and options
// of the protocol that are not known are answered by NegotiateProtocolVersion and
// go on as 3.0.
func parseStartup(b []byte) (*startup, error) {
	if len(b) < 4 {
		return nil, &startupError{codeProtocol, "weir: invalid startup packet"}
	}
	version := binary.BigEndian.Uint32(b)
	if version>>16 != protocolMajor {
		return nil, &startupError{codeNotSupported, fmt.Sprintf(
			"weir: protocol version %d.%d is not supported; use a client that speaks version 3.0", version>>16, version&0xffff)}
	}
	pairs, ok := startupPairs(b[4:])
	if !ok {
		return nil, &startupError{codeProtocol, "weir: invalid startup packet: its parameters are not pairs of texts"}
	}
	// pgproto3 v2 knows 3.0 only, and a list that is not empty.
	m := pgproto3.StartupMessage{Parameters: map[string]string{}}
	if len(pairs) > 0 {
		body := append(binary.BigEndian.AppendUint32(nil, version30), b[4:]...)
		if err := decode(&m, body); err != nil {
			return nil, &startupError{codeProtocol, "weir: invalid startup packet"}
		}
	}
	var unknown []string
	for _, p := range pairs {
		if strings.HasPrefix(p[0], "_pq_.") {
			unknown = append(unknown, p[0])
			delete(m.Parameters, p[0])
		}
	}
	s := &startup{}
	if version > version30 || len(unknown) > 0 {
		s.negotiate = appendNegotiate(unknown)
	}
	return s, s.take(m.Parameters)
}

// startupPairs checks the parameter list: pairs of strings, then one NUL.
func startupPairs(b []byte) ([][2]string, bool) {
	var out [][2]string
	for len(b) > 1 {
		rest, ok := skipCString(b, 2)
		if !ok || b[0] == 0 {
			return nil, false
		}
		key, value := twoStrings(b[:len(b)-len(rest)])
		out = append(out, [2]string{key, value})
		b = rest
	}
	return out, len(b) == 1 && b[0] == 0
}

func appendNegotiate(unknown []string) []byte {
	dst, mark := beginFrame(nil, 'v')
	dst = binary.BigEndian.AppendUint32(dst, version30)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(unknown)))
	for _, name := range unknown {
		dst = append(append(dst, name...), 0)
	}
	return endFrame(dst, mark)
}

// maxName63 is NAMEDATALEN-1: the server cuts user and database names to it.
const maxIdentifier = 63

// take reads the parameters. The user is not used: who somebody is, weir knows from
// the process.
func (s *startup) take(params map[string]string) error {
	user, ok := params["user"]
	if !ok || user == "" {
		return &startupError{codeAuthorization, "weir: no PostgreSQL user name specified in startup packet; any name will do"}
	}
	s.database = params["database"]
	if s.database == "" {
		s.database = user // as the server does
	}
	s.database = cutText(s.database, maxIdentifier)
	s.params = make(map[string]string)
	if err := s.options(params["options"]); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		value := params[name]
		switch name {
		case "user", "database", "options":
			continue
		case "replication":
			if !isFalse(value) {
				return &startupError{codeNotSupported, "weir: replication connections are not supported through weir"}
			}
			continue
		}
		if err := s.set(name, value, "startup parameter"); err != nil {
			return err
		}
	}
	s.name = s.params["application_name"]
	delete(s.params, "application_name")
	return nil
}

// isFalse reads a boolean as the server does (parse_bool).
func isFalse(v string) bool {
	v = strings.ToLower(v)
	return v == "0" || len(v) > 0 && (strings.HasPrefix("false", v) || strings.HasPrefix("no", v)) || v == "of" || v == "off"
}

// allowedParameters may be set at startup: they shape display or bound the session
// itself. search_path changes what names mean; weir follows it.
var allowedParameters = map[string]bool{
	"application_name": true, "client_encoding": true, "client_min_messages": true,
	"datestyle": true, "timezone": true, "intervalstyle": true, "extra_float_digits": true,
	"bytea_output": true, "xmlbinary": true, "xmloption": true, "lc_monetary": true, "lc_numeric": true, "lc_time": true,
	"search_path": true, "standard_conforming_strings": true,
	"statement_timeout": true, "lock_timeout": true, "idle_in_transaction_session_timeout": true,
	"idle_session_timeout": true, "transaction_timeout": true,
	"tcp_keepalives_idle": true, "tcp_keepalives_interval": true, "tcp_keepalives_count": true, "tcp_user_timeout": true,
	"default_transaction_isolation": true, "default_transaction_read_only": true, "default_transaction_deferrable": true,
	"jit": true, "geqo": true, "work_mem": true, "plan_cache_mode": true, "cursor_tuple_fraction": true, "gssencmode": false,
}

func (s *startup) set(name, value, what string) error {
	key := strings.ToLower(name)
	if !allowedParameters[key] {
		return &startupError{codeDenied, fmt.Sprintf(
			"weir: %s %q is not accepted; leave it out, or set it with SET once connected, where policy allows it", what, cutText(name, maxIdentifier))}
	}
	switch key {
	case "client_encoding":
		if !safeEncoding(value) {
			return &startupError{codeParameter, "weir: this client_encoding is not accepted: statements in it cannot be read safely; use UTF8"}
		}
	case "standard_conforming_strings":
		if isFalse(value) {
			return &startupError{codeParameter, "weir: standard_conforming_strings cannot be turned off at startup"}
		}
	}
	s.params[key] = value
	return nil
}

// options reads the parameter "options" by the server's rules (pg_split_opts and
// process_postgres_switches): words separated by spaces, a backslash takes the next
// character as it is; only -c name=value and --name=value are accepted.
func (s *startup) options(text string) error {
	words := splitOptions(text)
	for i := 0; i < len(words); i++ {
		w := words[i]
		var setting string
		switch {
		case w == "-c":
			if i++; i == len(words) {
				return optionError(w)
			}
			setting = words[i]
		case strings.HasPrefix(w, "-c"):
			setting = w[2:]
		case strings.HasPrefix(w, "--") && len(w) > 2:
			setting = w[2:]
		default:
			return optionError(w)
		}
		name, value, ok := strings.Cut(setting, "=")
		if !ok || name == "" {
			return optionError(w)
		}
		// In both forms the server reads - in a name as _ (ParseLongOption).
		if err := s.set(strings.ReplaceAll(name, "-", "_"), value, "option"); err != nil {
			return err
		}
	}
	return nil
}

func optionError(word string) error {
	return &startupError{codeDenied, fmt.Sprintf(
		"weir: the startup option %q is not accepted; only -c name=value is", cutText(word, maxIdentifier))}
}

func splitOptions(text string) []string {
	var out []string
	for i := 0; i < len(text); {
		if isSpace(text[i]) {
			i++
			continue
		}
		var w strings.Builder
		for ; i < len(text) && !isSpace(text[i]); i++ {
			if text[i] == '\\' {
				if i++; i == len(text) {
					break
				}
			}
			w.WriteByte(text[i])
		}
		out = append(out, w.String())
	}
	return out
}

// isSpace is C's isspace in the server's locale C.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// cutText cuts text to n bytes at a character.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
