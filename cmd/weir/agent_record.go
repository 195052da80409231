package main

import (
	"context"
	"fmt"
	"time"

	"filippo.io/age"

	"github.com/weirproxy/weir/internal/record"
)

// startRecorder makes what records sessions, where a policy asks for it.
func (a *agent) startRecorder(context.Context) error {
	var recipients []age.Recipient
	for i, text := range a.cfg.Audit.SealTo {
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			return fmt.Errorf("audit.seal_to[%d] is no age recipient; write the public key that age-keygen prints (age1...)", i)
		}
		recipients = append(recipients, r)
	}
	r, err := record.Open(record.Config{Dir: record.Dir(a.cfg.StateDir), SealTo: recipients, Append: a.audit.Append, Node: a.cfg.Node,
		Retention: time.Duration(a.cfg.Audit.Retention), Now: time.Now, Log: a.log,
		Problem: func(text string) { a.setProblem("recordings", text) }})
	if err != nil {
		return err
	}
	a.recorder = r
	a.onStop("recordings", r.Close)
	return nil
}
