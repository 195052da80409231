package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/weirproxy/weir/internal/control"
	"github.com/weirproxy/weir/internal/identity"
	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/policy/policystore"
	"github.com/weirproxy/weir/internal/session"
	"github.com/weirproxy/weir/pkg/auditlog"
)

// handleEvidence adds the route on which `weir evidence export` has itself recorded.
func (a *agent) handleEvidence(s *control.Server[*identity.Caller]) {
	s.Handle("POST /v1/evidence", a.recordEvidence)
}

// recordEvidence records an export. Who can read the log can make a pack: root.
func (a *agent) recordEvidence(ctx context.Context, caller *identity.Caller, body []byte, _ *http.Request) (any, error) {
	if caller.Process.UID != 0 {
		return nil, control.Refuse(http.StatusForbidden, "weir: evidence is exported by root on this node")
	}
	in := &auditlog.Evidence{}
	digest, ok := "", json.Unmarshal(body, in) == nil
	if ok {
		digest, ok = strings.CutPrefix(in.Manifest, "sha256:")
	}
	if !ok || len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" || len(in.Framework) > 64 || len(in.Seed) > 256 {
		return nil, control.Refuse(http.StatusBadRequest, "weir: this is no export to record")
	}
	ev := &auditlog.Event{Kind: auditlog.EvidenceExport, Process: session.ProcessEvent(&caller.Process), Evidence: in}
	if b, err := a.identity.Whoami(caller); err == nil {
		ev.Principal, ev.Session = session.PrincipalEvent(b.Principal), b.ID
	}
	return struct{}{}, a.record(ctx, ev)
}

// policyFiles is the text of the policy that is in force, for the event of its load:
// who had access to what is read from it later. nil when the files are others by now
// or too long: then the digest alone names it.
func (a *agent) policyFiles(revision string) []auditlog.PolicyFile {
	files, err := policystore.Read(a.cfg.PolicyFiles)
	if err != nil || policy.Revision(files) != revision {
		return nil
	}
	var list []auditlog.PolicyFile
	for _, f := range files {
		list = append(list, auditlog.PolicyFile{Name: f.Name, Text: string(f.Data)})
	}
	if b, err := json.Marshal(list); err != nil || len(b) > auditlog.MaxPolicyText {
		return nil
	}
	return list
}
