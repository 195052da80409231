package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/testkit/postgres"
)

// growing is output that is looked at while it is written.
type growing struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (g *growing) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.Write(p)
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

const demoDelete = "DELETE FROM shop.carts"

// approved lets Ann wait for Dora.
func (d *demo) approved(ctx context.Context) error {
	if _, err := d.db.Query(ctx, postgres.ShopDatabase, "CREATE TABLE shop.carts AS SELECT id FROM shop.orders; GRANT SELECT, DELETE ON shop.carts TO "+postgres.AppRole); err != nil {
		return err
	}
	out := &growing{}
	cmd := d.node.As(ctx, d.token("ann"), "psql", "-X", "-h", "127.0.0.1", "-p", fmt.Sprint(d.db.Port), "-d", postgres.ShopDatabase, "-c", demoDelete)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=20", "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = out, out
	if err := d.node.Start(cmd); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	request, err := d.waiting(ctx, ended, out)
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	d.say("$ weir exec --token-file ann.jwt -- psql ... -c %q      (it waits)\n%s", demoDelete, out)

	own, err := d.approve(ctx, request, "ann", "developer", "dba")
	if err == nil {
		return errors.New("a request was approved by its own requester")
	}
	d.say("(Ann, who has meanwhile been made an administrator)\n$ weir approvals approve %s\n%s", request.ID, own)
	text, err := d.approve(ctx, request, "dora", "dba")
	d.say("(Dora)\n$ weir approvals approve %s --reason cleaning\n%s", request.ID, text)
	if err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	d.say("(and Ann's psql)\n%s", lastLine(out.String()))
	return expect(out.String(), nil, "DELETE 100")
}

// waiting is the request that a held client waits for.
func (d *demo) waiting(ctx context.Context, ended <-chan error, out fmt.Stringer) (*approval.Request, error) {
	for {
		raw, err := d.node.Weir(ctx, "approvals", "list", "-o", "json").Output()
		if err != nil {
			return nil, err
		}
		var list []approval.Request
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, err
		}
		if len(list) > 0 && strings.Contains(out.String(), list[0].ID) {
			return &list[0], nil
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("it did not wait: %v: %s", err, out)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// approve signs somebody in for a request and brings the token.
func (d *demo) approve(ctx context.Context, r *approval.Request, who string, groups ...string) (string, error) {
	token, err := d.idp.TokenWithNonce(ctx, who, who+"@example.com", groups, r.Nonce)
	if err != nil {
		return "", err
	}
	file := d.path(who + "-approves.jwt")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return "", err
	}
	out, err := d.node.Weir(ctx, "approvals", "approve", r.ID, "--token-file", file, "--reason", "cleaning").CombinedOutput()
	return string(out), err
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
