package main

import (
	"time"

	"github.com/weirproxy/weir/internal/seal"
)

// startSealer seals the audit log. It stops before the spool and after everything
// that records, so that the last word is sealed too.
func (a *agent) startSealer() error {
	sealer, err := seal.Open(seal.Config{StateDir: a.cfg.StateDir, Spool: a.audit, Retention: time.Duration(a.cfg.Audit.Retention), Log: a.log,
		Problem: func(text string) { a.setProblem("sealed log", text) }})
	if err != nil {
		return err
	}
	a.sealer = sealer
	a.onStop("sealed log", sealer.Close)
	return nil
}
