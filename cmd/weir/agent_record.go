package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"github.com/weirproxy/weir/internal/record"
)

// startRecorder makes what records sessions, where a policy asks for it.
func (a *agent) startRecorder(context.Context) error {
	var recipients []age.Recipient
	for i, text := range a.cfg.Audit.SealTo {
		r, err := recipient(text)
		if err != nil {
			return fmt.Errorf("audit.seal_to[%d] is no recipient that weir can seal to; write the public key that age-keygen prints (age1...), or an SSH public key", i)
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

func recipient(text string) (age.Recipient, error) {
	if strings.HasPrefix(text, "ssh-") {
		return agessh.ParseRecipient(text)
	}
	list, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil || len(list) != 1 {
		return nil, fmt.Errorf("not one recipient")
	}
	return list[0], nil
}
