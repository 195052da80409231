package postgres

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configure appends to the files that initdb made.
func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses":        s.listenAddresses(),
		"unix_socket_directories": s.Socket,
		"fsync":                   "off",
		"full_page_writes":        "off",
		"synchronous_commit":      "off",
		"logging_collector":       "off",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	if s.config.TLS {
		if err := s.makeTLS(settings); err != nil {
			return fmt.Errorf("postgres: TLS: %w", err)
		}
	}
	maps.Copy(settings, s.config.Settings)

	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, quoteSetting.Replace(settings[name]))
	}
	f, err := os.OpenFile(filepath.Join(s.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(conf.String()); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	hba := s.config.HBA
	if hba == "" {
		hba = "host all all all scram-sha-256"
	}
	// The socket's directory is open to root and the server's account only.
	text := "local all all trust\n" + hba + "\n"
	return os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(text), 0o600)
}

// quoteSetting writes a value for '...' in postgresql.conf, where a backslash
// escapes (PostgreSQL source, guc-file.l).
var quoteSetting = strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`)

func (s *Server) listenAddresses() string {
	addresses := []string{"127.0.0.1", "::1"}
	for _, a := range s.config.Listen {
		addresses = append(addresses, a.String())
	}
	return strings.Join(addresses, ",")
}
