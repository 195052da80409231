package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// consoleTimeout bounds a request's header on the console's address.
const consoleTimeout = 5 * time.Second

// startConsole serves /metrics and /healthz. It listens where the configuration
// says; an address in use is a problem that `weir status` shows, not a reason to
// stop protecting backends.
func (a *agent) startConsole(context.Context) error {
	if a.cfg.Console.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", a.cfg.Console.Listen)
	if err != nil {
		a.setProblem("console", fmt.Sprintf("/metrics and /healthz are not served: %v; set console.listen to a free address, or to \"\"", err))
		a.log.Error("the console's address cannot be used", "error", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.telemetry.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.ready.Load() || a.audit.Status().Problem != "" {
			http.Error(w, "not ready: see weir status", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: consoleTimeout, ReadTimeout: consoleTimeout, WriteTimeout: 2 * consoleTimeout}
	a.run("console", func(context.Context) error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	a.onStop("console requests", server.Close)
	return nil
}
