package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/approval/notify"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
	"github.com/weirproxy/weir/internal/kv"
)

const (
	// approvalBucket is the bucket of requests and grants.
	approvalBucket = "approvals"
	// keepApprovals is how long the store remembers a request; the audit log keeps it
	// longer. Grants are shorter than that, or end with it.
	keepApprovals = 30 * 24 * time.Hour
	// maxApproval bounds a stored request, bytes: its document, decisions with their
	// tokens and key sets, and what approvers are shown.
	maxApproval = 4 << 20
)

// startApprovals opens the store of requests and grants, and closes what waited when the
// agent ended.
func (a *agent) startApprovals(ctx context.Context) error {
	store, err := kv.Open(ctx, kv.Config{Dir: filepath.Join(a.cfg.StateDir, "kv", "nats"), Log: a.log})
	if err != nil {
		return err
	}
	a.onStop("store of approvals", store.Close)
	bucket, err := store.Bucket(ctx, approvalBucket, kv.Options{TTL: keepApprovals, MaxValue: maxApproval})
	if err != nil {
		return err
	}
	key, err := a.secretKey("approvals.key", approvalKeySize)
	if err != nil {
		return fmt.Errorf("the key that seals requests: %w", err)
	}
	notifiers, err := a.notifiers(ctx)
	if err != nil {
		return err
	}
	m, err := approval.New(ctx, approval.Config{Node: a.cfg.Node, Store: bucket, Key: key, Timeout: time.Duration(a.cfg.Approvals.Timeout),
		Prove: prover{a.identity}, Record: a.audit, Notify: notifiers, Now: time.Now, Log: a.log})
	if err != nil {
		return err
	}
	a.approvals, a.held = m, m
	a.onStop("approvals", m.Close)
	return nil
}

const approvalKeySize = 32 // bytes

// secretKey is a key of the node's own in the keys folder, made on the first start.
func (a *agent) secretKey(name string, size int) ([]byte, error) {
	path := filepath.Join(a.keys(), name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, size)
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if len(b) != size {
		return nil, fmt.Errorf("%s has %d bytes, not %d: restore it, or move it away for a new one", path, len(b), size)
	}
	return b, nil
}

// prover verifies approvers' tokens by the configured issuers.
type prover struct{ *identity.Manager }

func (p prover) Verify(ctx context.Context, token string, want approval.Want) (*approval.Proof, error) {
	proof, err := p.VerifyProof(ctx, token, identity.Want(want))
	if err != nil {
		return nil, err
	}
	return &approval.Proof{Who: proof.Principal, Token: proof.Token, Keys: proof.Keys}, nil
}

func (p prover) Recheck(token string, keys json.RawMessage, want approval.Want, at time.Time) (*flow.Principal, error) {
	return p.RecheckProof(token, keys, identity.Want(want), at)
}

// notifiers tell people about requests as the configuration says. One that cannot be
// set up is a problem that `weir status` shows: held actions still wait, and people can
// list them.
func (a *agent) notifiers(ctx context.Context) ([]approval.Notifier, error) {
	var all []approval.Notifier
	for i, n := range a.cfg.Approvals.Notify {
		name := fmt.Sprintf("notifier %d", i+1)
		one, err := a.notifier(ctx, n)
		if err != nil {
			a.setProblem(name, fmt.Sprintf("approvals.notify, entry %d: nobody is told this way: %v", i+1, err))
			a.log.Error("a notifier of approvals cannot be set up", "entry", i+1, "error", err)
			continue
		}
		a.onStop(name, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
			defer cancel()
			return one.Close(ctx)
		})
		all = append(all, one)
	}
	return all, nil
}

// closingNotifier is a notifier that has to be closed.
type closingNotifier interface {
	approval.Notifier
	Close(ctx context.Context) error
}

func (a *agent) notifier(ctx context.Context, n config.Notifier) (closingNotifier, error) {
	secret := func(ref string) (string, error) {
		s, _, err := a.secrets.Get(ctx, ref)
		return s.Reveal(), err
	}
	if s := n.Slack; s != nil {
		app, err := secret(s.AppToken)
		if err != nil {
			return nil, err
		}
		bot, err := secret(s.BotToken)
		if err != nil {
			return nil, err
		}
		return notify.NewSlack(notify.SlackConfig{AppToken: app, BotToken: bot, Channel: s.Channel, APIURL: s.APIURL, ConsoleURL: a.cfg.Console.URL,
			Service: func() approval.Service { return a.approvals }, Principal: a.signedIn, Log: a.log})
	}
	key, err := secret(n.Secret)
	if err != nil {
		return nil, err
	}
	return notify.NewWebhook(notify.WebhookConfig{URL: n.Webhook, Secret: []byte(key), Details: n.Details, ConsoleURL: a.cfg.Console.URL, Log: a.log})
}

// signedIn finds the valid sign-in of the person with an e-mail address, at this node or
// at its console.
func (a *agent) signedIn(email string) (*flow.Principal, bool) {
	if a.console != nil {
		if who, ok := a.console.Principal(email); ok {
			return who, true
		}
	}
	now := time.Now()
	for _, b := range a.identity.List() {
		p := b.Principal
		if p != nil && p.Kind == flow.Human && p.Actor == nil && strings.EqualFold(p.User, email) && (p.Expires.IsZero() || now.Before(p.Expires)) {
			return p, true
		}
	}
	return nil, false
}
