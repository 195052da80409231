package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/identity"
)

// viewerCheck is how often an open inbox is checked to be still its owner's: a
// sign-out ends it.
const viewerCheck = 2 * time.Second

// decideTimeout bounds one decision: a provider may have to be asked for its keys. The
// caller gives up a little later.
const decideTimeout = 25 * time.Second

// approvalNews is a line of GET /v1/approvals/watch. The first line has no request:
// what happens from there on is not missed.
type approvalNews struct {
	Request *approval.Request `json:"request,omitempty"`
}

// approvalRoutes answers about approvals on the control socket. C is the caller.
type approvalRoutes[C any] struct {
	service approval.Service
	// viewer is who calls; the error is of a caller that nothing is known about. why
	// says why nobody is signed in; nil when somebody is.
	viewer func(C) (v approval.Viewer, why, err error)
	check  time.Duration
}

func (a *agent) handleApprovals(s *control.Server[*identity.Caller]) {
	routes := approvalRoutes[*identity.Caller]{service: a.approvals, viewer: a.viewer, check: viewerCheck}
	routes.handle(s)
}

// viewer is a caller as approvals know it: somebody who is signed in, and sees what that
// person may, or else root.
func (a *agent) viewer(c *identity.Caller) (v approval.Viewer, why, err error) {
	v.Root = c.Process.UID == 0
	b, err := a.identity.Whoami(c)
	switch {
	case err == nil:
		v.Who, v.Root = b.Principal, false
	case errors.Is(err, identity.ErrNoIdentity), errors.Is(err, identity.ErrExpired):
		return v, err, nil
	}
	return v, nil, err
}

func (a *approvalRoutes[C]) handle(s *control.Server[C]) {
	s.Handle("GET /v1/approvals", a.list)
	s.Handle("GET /v1/approvals/watch", a.watch)
	s.Handle("GET /v1/approvals/{id}", a.show)
	for verb, decide := range map[string]decideFunc{
		"approve":     approval.Service.Approve,
		"deny":        approval.Service.Deny,
		"withdraw":    approval.Service.Withdraw,
		"break-glass": approval.Service.BreakGlass,
		"review":      approval.Service.Review,
	} {
		s.Handle("POST /v1/approvals/{id}/"+verb, a.decide(decide))
	}
}

// decideFunc is one of the ways to decide.
type decideFunc func(s approval.Service, ctx context.Context, id string, a approval.Attempt) (*approval.Request, error)

func errNoApprovals() error {
	return control.Refuse(http.StatusServiceUnavailable, "weir: this agent holds no requests for approval; `weir status` says what is wrong with it")
}

// reader is a viewer that may read at all.
func (a *approvalRoutes[C]) reader(caller C) (approval.Viewer, error) {
	if a.service == nil {
		return approval.Viewer{}, errNoApprovals()
	}
	v, why, err := a.viewer(caller)
	switch {
	case err != nil:
		return v, refuse(err)
	case why != nil && !v.Root:
		return v, control.Refuse(http.StatusForbidden, "weir: %v", why)
	}
	return v, nil
}

func (a *approvalRoutes[C]) list(ctx context.Context, caller C, _ []byte, r *http.Request) (any, error) {
	v, err := a.reader(caller)
	if err != nil {
		return nil, err
	}
	requests, err := a.service.List(ctx, v, r.URL.Query().Get("all") == "1")
	if err != nil {
		return nil, refuseApproval(err)
	}
	if requests == nil {
		requests = []approval.Request{}
	}
	return requests, nil
}

func (a *approvalRoutes[C]) show(ctx context.Context, caller C, _ []byte, r *http.Request) (any, error) {
	v, err := a.reader(caller)
	if err != nil {
		return nil, err
	}
	request, err := a.service.Show(ctx, v, r.PathValue("id"))
	if err != nil {
		return nil, refuseApproval(err)
	}
	return request, nil
}

// decide passes an attempt on, also of nobody: that it was refused is on record then.
func (a *approvalRoutes[C]) decide(decide decideFunc) func(context.Context, C, []byte, *http.Request) (any, error) {
	return func(ctx context.Context, caller C, body []byte, r *http.Request) (any, error) {
		if a.service == nil {
			return nil, errNoApprovals()
		}
		var in control.Decide
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, control.Refuse(http.StatusBadRequest, "weir: the request is no JSON object with a token or a reason")
		}
		v, _, err := a.viewer(caller)
		if err != nil {
			return nil, refuse(err)
		}
		// What has been recorded has to be answered as it was recorded, so a caller
		// who hangs up does not stop it half-way.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), decideTimeout)
		defer cancel()
		request, err := decide(a.service, ctx, r.PathValue("id"), approval.Attempt{Viewer: v, Token: in.Token, Reason: in.Reason})
		if err != nil {
			return nil, refuseApproval(err)
		}
		return request, nil
	}
}

// watch yields requests until the caller hangs up or is somebody else: what a sign-in
// may see ends with it.
func (a *approvalRoutes[C]) watch(ctx context.Context, caller C, _ []byte, _ *http.Request) (any, error) {
	v, err := a.reader(caller)
	if err != nil {
		return nil, err
	}
	w := a.service.Watch(ctx, v)
	context.AfterFunc(ctx, w.Close) // the stream itself does not learn that writing failed
	first := true
	return control.Stream(func(ctx context.Context) (any, error) {
		if first {
			first = false
			return approvalNews{}, nil
		}
		for {
			turn, cancel := context.WithTimeout(ctx, a.check)
			request, err := w.Next(turn)
			cancel()
			now, readErr := a.reader(caller)
			switch {
			case readErr != nil:
				return nil, readErr
			case !sameViewer(&now, &v):
				return nil, errOtherViewer
			case err == nil:
				return approvalNews{Request: request}, nil
			case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
				return nil, err
			}
		}
	}), nil
}

// errOtherViewer ends an inbox whose owner has signed in anew or out.
var errOtherViewer = errors.New("somebody else is signed in now")

func sameViewer(a, b *approval.Viewer) bool {
	return a.Root == b.Root && (a.Who == b.Who || a.Who != nil && b.Who != nil && samePrincipal(a.Who, b.Who))
}

func samePrincipal(a, b *flow.Principal) bool {
	return a.Session == b.Session && a.Issuer == b.Issuer && a.Subject == b.Subject && a.Expires.Equal(b.Expires)
}

// refuseApproval passes an error of the service on; its text is for the user.
func refuseApproval(err error) error {
	var (
		notFound   *approval.NotFound
		notAllowed *approval.NotAllowed
		conflict   *approval.Conflict
	)
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, &notFound):
		status = http.StatusNotFound
	case errors.As(err, &notAllowed):
		status = http.StatusForbidden
	case errors.As(err, &conflict):
		status = http.StatusConflict
	}
	return control.Refuse(status, "%s", prefixed(err.Error()))
}
