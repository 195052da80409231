package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/weirproxy/weir/internal/approval"
	"github.com/weirproxy/weir/internal/flow"
)

const (
	maxBody  = 128 << 10 // bytes: a token of 64 KiB and a reason
	maxToken = 64 << 10  // bytes
)

// decision is the body of a POST.
type decision struct {
	// Token is an ID token whose nonce is the request's; "" when the bearer's own sign-in
	// is to decide.
	Token  string `json:"token"`
	Reason string `json:"reason"`
}

// call answers one call of somebody whose token holds.
type call func(w http.ResponseWriter, r *http.Request, who *flow.Principal, s approval.Service)

func (c *Console) routeAPI(mux *http.ServeMux) {
	const base = "/api/v1/approvals"
	one := func(method, path string, h call) {
		known := c.bearer(h)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method {
				known(w, r)
				return
			}
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, "only "+method+" is answered here")
		})
	}
	one(http.MethodGet, base, c.apiList)
	one(http.MethodGet, base+"/watch", c.apiWatch)
	one(http.MethodGet, base+"/{id}", c.apiShow)
	for verb := range verbs {
		one(http.MethodPost, base+"/{id}/"+verb, c.apiDecide(verb))
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "there is nothing here; approvals are at "+base)
	})
}

// bearer learns who calls from the Authorization header alone (RFC 6750, 2.1): a browser
// does not send it by itself.
func (c *Console) bearer(next call) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		token = strings.TrimSpace(token)
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			unauthorized(w, "", "this needs the header Authorization: Bearer TOKEN, with an ID token of one of identity.issuers")
			return
		}
		if len(token) > maxToken || len(r.Header.Values("Authorization")) > 1 {
			unauthorized(w, `, error="invalid_token"`, "the token is too long, or there are two: send one ID token")
			return
		}
		patient(w, patience)
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		who, err := c.cfg.Verify(ctx, token)
		cancel()
		var away Unavailable
		switch {
		case errors.As(err, &away):
			refuse(w, http.StatusServiceUnavailable, err.Error())
			return
		case err != nil:
			unauthorized(w, `, error="invalid_token"`, err.Error())
			return
		}
		s, err := c.service()
		if err != nil {
			c.refuse(w, err)
			return
		}
		next(w, r, who, s)
	}
}

func (c *Console) refuse(w http.ResponseWriter, err error) {
	code, text := c.explain(err)
	refuse(w, code, text)
}

func (c *Console) apiList(w http.ResponseWriter, r *http.Request, who *flow.Principal, s approval.Service) {
	all, err := s.List(r.Context(), approval.Viewer{Who: who}, r.URL.Query().Get("all") == "1")
	if err != nil {
		c.refuse(w, err)
		return
	}
	if all == nil {
		all = []approval.Request{}
	}
	reply(w, all)
}

func (c *Console) apiShow(w http.ResponseWriter, r *http.Request, who *flow.Principal, s approval.Service) {
	one, err := s.Show(r.Context(), approval.Viewer{Who: who}, r.PathValue("id"))
	if err != nil {
		c.refuse(w, err)
		return
	}
	reply(w, one)
}

func (c *Console) apiDecide(verb string) call {
	return func(w http.ResponseWriter, r *http.Request, who *flow.Principal, s approval.Service) {
		var in decision
		if !readDecision(w, r, &in) {
			return
		}
		// What was recorded is answered as it was recorded, also when the caller hangs up.
		after, err := verbs[verb](s, context.WithoutCancel(r.Context()), r.PathValue("id"),
			approval.Attempt{Viewer: approval.Viewer{Who: who}, Token: in.Token, Reason: in.Reason})
		if err != nil {
			c.refuse(w, err)
			return
		}
		reply(w, after)
	}
}

// readDecision reads a body; it answers when it cannot. No body at all is an empty one.
func readDecision(w http.ResponseWriter, r *http.Request, in *decision) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		refuse(w, http.StatusRequestEntityTooLarge, "the body is longer than a token and a reason can be")
		return false
	case err != nil:
		refuse(w, http.StatusBadRequest, "the body did not come whole")
		return false
	case len(body) == 0:
		return true
	case mediaType(r) != "application/json":
		refuse(w, http.StatusUnsupportedMediaType, "the body must be application/json")
		return false
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil || d.More() {
		refuse(w, http.StatusBadRequest, `the body is no JSON object with "token" and "reason"`)
		return false
	}
	return true
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
