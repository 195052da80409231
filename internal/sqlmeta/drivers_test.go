package sqlmeta

import (
	"os"
	"strings"
	"testing"
)

// driverStatements are the statements of testdata/drivers.sql, one a paragraph.
func driverStatements(t *testing.T) []string {
	b, err := os.ReadFile("testdata/drivers.sql")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range strings.Split(string(b), "\n\n") {
		var lines []string
		for _, l := range strings.Split(p, "\n") {
			if !strings.HasPrefix(l, "--") {
				lines = append(lines, l)
			}
		}
		if sql := strings.TrimSpace(strings.Join(lines, "\n")); sql != "" {
			out = append(out, sql)
		}
	}
	if len(out) < 50 {
		t.Fatalf("%d statements", len(out))
	}
	return out
}
