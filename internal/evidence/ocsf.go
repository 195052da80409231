package evidence

import (
	"cmp"
	"crypto/sha256"
	"net"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// ocsfVersion is that of the schema (schema.ocsf.io).
const ocsfVersion = "1.5.0"

// Classes of the schema that are used, and their activities.
const (
	classAuthentication = 3002 // 1 logon, 2 logoff
	classNetwork        = 4001 // 1 open, 2 close, 5 refuse
	classLifecycle      = 6002 // 3 start, 4 stop, 8 update
	classAPI            = 6003 // 1 create, 2 read, 3 update, 4 delete
	classDatastore      = 6005 // 1 read, 2 update, 3 connect, 4 query, 5 write, 6 create, 7 delete
	activityOther       = 99
)

// Severities and statuses.
const (
	severityInfo   = 1
	severityLow    = 2
	severityMedium = 3
	severityHigh   = 4
	statusSuccess  = 1
	statusFailure  = 2
)

// ocsfClass is the row of the mapping for a kind of event.
type ocsfClass struct {
	class, activity int
	name            string // of the activity, where it is 99
	severity        int
}

// classes maps kinds of events to the schema. What is not in it is an API activity
// with the kind as its name.
var classes = map[auditlog.Kind]ocsfClass{
	auditlog.AgentStart:      {classLifecycle, 3, "", severityInfo},
	auditlog.AgentStop:       {classLifecycle, 4, "", severityInfo},
	auditlog.PolicyLoad:      {classLifecycle, 8, "", severityInfo},
	auditlog.ConfigLoad:      {classLifecycle, 8, "", severityInfo},
	auditlog.Gap:             {classLifecycle, activityOther, "gap in the audit log", severityHigh},
	auditlog.RetentionEvent:  {classLifecycle, activityOther, "events removed because of their age", severityLow},
	auditlog.IdentityBind:    {classAuthentication, 1, "", severityInfo},
	auditlog.IdentityUnbind:  {classAuthentication, 2, "", severityInfo},
	auditlog.FlowOpen:        {classNetwork, 1, "", severityInfo},
	auditlog.FlowClose:       {classNetwork, 2, "", severityInfo},
	auditlog.FlowRefused:     {classNetwork, 5, "", severityMedium},
	auditlog.BypassBlocked:   {classNetwork, 5, "", severityHigh},
	auditlog.ActionEvent:     {classDatastore, 4, "", severityInfo},
	auditlog.ApprovalRequest: {classAPI, 1, "", severityLow},
	auditlog.ApprovalView:    {classAPI, 2, "", severityInfo},
	auditlog.ApprovalDecide:  {classAPI, 3, "", severityLow},
	auditlog.ApprovalExpire:  {classAPI, 4, "", severityInfo},
	auditlog.EvidenceExport:  {classAPI, 2, "", severityLow},
	auditlog.Recording:       {classAPI, 1, "", severityInfo},
}

// datastore is the activity of a verb.
var datastore = map[string]int{
	"connect": 3, "select": 1, "insert": 5, "update": 2, "delete": 7, "truncate": 7, "create": 6, "drop": 7, "alter": 2, "copy": 1,
}

type object = map[string]any

type ocsf struct {
	node, origin string
}

func newOCSF(m *Manifest) *ocsf { return &ocsf{node: m.Node, origin: m.Origin} }

// event is an event in the schema. The exact event is in events.jsonl; raw_data_hash
// is its leaf's SHA-256 without the tree's prefix.
func (o *ocsf) event(ev *auditlog.Event, index uint64, raw []byte) object {
	c, known := classes[ev.Kind]
	if !known {
		c = ocsfClass{classAPI, activityOther, string(ev.Kind), severityInfo}
	}
	if c.class == classDatastore {
		c.activity = activityOf(ev)
		if c.activity == activityOther {
			c.name = "outcome"
		}
	}
	if denied(ev) {
		c.severity = max(c.severity, severityMedium)
	}
	sum := sha256.Sum256(raw)
	e := object{
		"activity_id": c.activity, "category_uid": c.class / 1000, "class_uid": c.class, "type_uid": c.class*100 + c.activity,
		"severity_id": c.severity, "time": ev.Time.UnixMilli(),
		"metadata": object{"version": ocsfVersion, "uid": strconv.FormatUint(ev.Seq, 10), "sequence": ev.Seq, "log_name": o.origin, "original_time": stamp(ev.Time),
			"product": object{"name": "Weir", "vendor_name": "Weir"}, "profiles": []string{"security_control", "host"}, "event_code": string(ev.Kind)},
		"raw_data_hash": object{"algorithm": "SHA-256", "algorithm_id": 3, "value": hexOf(sum[:])},
		"device":        object{"hostname": o.node, "name": o.node, "type_id": 1},
		"unmapped":      unmapped(ev, index),
	}
	if c.name != "" {
		e["activity_name"] = c.name
	}
	if ev.Reason != "" {
		e["message"] = ev.Reason
	}
	o.verdict(e, ev)
	actor := actorOf(ev)
	if len(actor) > 0 {
		e["actor"] = actor
	}
	src, dst := endpoint(ev, o.node), destination(ev)
	switch c.class {
	case classAuthentication:
		user, _ := actor["user"].(object)
		if user == nil {
			user = object{"name": "unknown", "type_id": 0}
		}
		e["user"], e["service"] = user, object{"name": "weir"}
		e["auth_protocol"], e["auth_protocol_id"], e["is_remote"] = "OpenID", 4, false
	case classNetwork:
		e["src_endpoint"], e["dst_endpoint"] = src, dst
		e["connection_info"] = object{"direction_id": 2, "protocol_num": 6, "uid": ev.Flow}
	case classLifecycle:
		e["app"] = object{"name": "Weir agent", "vendor_name": "Weir", "uid": o.node}
	case classAPI:
		e["actor"], e["src_endpoint"] = orNobody(actor), src
		e["api"] = object{"operation": string(ev.Kind), "service": object{"name": "weir"}}
		if ev.Approval != nil {
			e["resources"] = []object{{"type": "approval", "uid": ev.Approval.ID}}
		}
	case classDatastore:
		e["actor"], e["src_endpoint"], e["dst_endpoint"] = orNobody(actor), src, dst
		e["type_id"] = 1
		e["database"] = object{"name": cmp.Or(ev.Database, ev.Backend), "type_id": 1, "type": ev.Protocol}
		if a := ev.Action; a != nil && a.Text != "" {
			q := object{"query_string": a.Text}
			if ev.Result != nil {
				q["query_time"] = ev.Result.DurationUS / 1000
			}
			e["query_info"] = q
		}
		if a := ev.Action; a != nil && len(a.Resources) > 0 {
			e["table"] = object{"name": a.Resources[0]}
		}
	}
	return e
}

// verdict adds what was decided (profile security_control) and how it ended.
func (o *ocsf) verdict(e object, ev *auditlog.Event) {
	switch {
	case denied(ev) || ev.Kind == auditlog.FlowRefused || ev.Kind == auditlog.BypassBlocked:
		e["action_id"], e["disposition_id"], e["status_id"] = 2, 2, statusFailure
	case ev.Verdict != "":
		e["action_id"], e["disposition_id"], e["status_id"] = 1, 1, statusSuccess
	case ev.Result != nil && ev.Result.Status == auditlog.StatusOK:
		e["status_id"] = statusSuccess
	case ev.Result != nil:
		e["status_id"] = statusFailure
	}
	if x := ev.Result; x != nil {
		e["status_detail"] = x.Status
		if x.Code != "" {
			e["status_code"] = x.Code
		}
	}
	if ev.Rule != "" {
		e["firewall_rule"] = object{"name": ev.Rule, "uid": cmp.Or(ev.Policy, "unknown")}
	}
}

func activityOf(ev *auditlog.Event) int {
	a := ev.Action
	if a == nil || a.Phase == auditlog.PhaseOutcome {
		return activityOther
	}
	for _, v := range a.Verbs {
		if n, ok := datastore[v]; ok {
			return n
		}
	}
	return 4
}

func orNobody(actor object) object {
	if len(actor) == 0 {
		return object{"app_name": "unknown"}
	}
	return actor
}

func actorOf(ev *auditlog.Event) object {
	actor := object{}
	if p := ev.Principal; p != nil {
		kind := 0
		switch p.Kind {
		case "human":
			kind = 1 // User
		case "workload", "ci", "agent":
			kind = 4 // Service
		}
		u := object{"name": p.User, "uid": p.Subject, "type_id": kind, "domain": p.Issuer}
		if len(p.Groups) > 0 {
			var groups []object
			for _, g := range p.Groups {
				groups = append(groups, object{"name": g})
			}
			u["groups"] = groups
		}
		actor["user"] = u
		s := object{"uid": cmp.Or(ev.Session, p.TokenID), "issuer": p.Issuer}
		if p.Expires != nil {
			s["expiration_time"] = p.Expires.UnixMilli()
		}
		actor["session"] = s
	}
	if p := ev.Process; p != nil {
		actor["process"] = object{"pid": p.PID, "name": cmp.Or(p.Comm, p.Exe), "file": object{"path": p.Exe, "name": p.Exe[strings.LastIndexByte(p.Exe, '/')+1:], "type_id": 1}, "user": object{"uid": strconv.FormatUint(uint64(p.UID), 10), "type_id": 0}}
	}
	return actor
}

func endpoint(ev *auditlog.Event, node string) object {
	e := object{"hostname": node}
	if p := ev.Process; p != nil && p.Pod != nil {
		e["name"], e["uid"] = p.Pod.Namespace+"/"+p.Pod.Name, p.Pod.UID
	}
	return e
}

func destination(ev *auditlog.Event) object {
	e := object{"svc_name": cmp.Or(ev.Backend, "unknown")}
	if host, port, err := net.SplitHostPort(ev.Destination); err == nil {
		e["ip"] = host
		if n, err := strconv.Atoi(port); err == nil {
			e["port"] = n
		}
	}
	return e
}

// unmapped is what the schema has no place for.
func unmapped(ev *auditlog.Event, index uint64) object {
	u := object{"kind": string(ev.Kind), "index": index}
	set := func(name, v string) {
		if v != "" {
			u[name] = v
		}
	}
	set("flow", ev.Flow)
	set("session", ev.Session)
	set("verdict", ev.Verdict)
	set("policy", ev.Policy)
	set("login", ev.Login)
	if a := ev.Action; a != nil {
		set("action", a.ID)
		set("phase", a.Phase)
		if len(a.Verbs) > 0 {
			u["verbs"], u["resources"] = a.Verbs, a.Resources
		}
	}
	if a := ev.Approval; a != nil {
		u["approval"] = object{"id": a.ID, "decided": a.Decided, "status": a.Status, "approvers": a.Approvers, "justification": a.Justification, "proof": a.Proof, "digest": a.Digest}
	}
	if len(ev.Masks) > 0 {
		u["masks"] = ev.Masks
	}
	if x := ev.Result; x != nil {
		u["rows"], u["bytes"] = x.Rows, x.Bytes
	}
	return u
}
