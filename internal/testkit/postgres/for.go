package postgres

import (
	"context"
	"os"
)

// TB is what For needs of testing.TB, so that the demo does not link testing.
type TB interface {
	Helper()
	TempDir() string
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// For starts a server for one test, in a temporary directory of it unless c
// names another, and stops it when the test ends. The server's log is shown when
// the test failed.
func For(t TB, c Config) *Server {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	s, err := Start(context.Background(), c)
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Logf("stop PostgreSQL: %v", err)
		}
		if t.Failed() {
			info, err := os.Stat(s.LogFile)
			if err == nil {
				t.Logf("end of the server's log:\n%s", s.logSince(max(0, info.Size()-maxLogTail)))
			}
		}
	})
	return s
}
