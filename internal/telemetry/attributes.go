package telemetry

import (
	"net"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// attributes describe an event: semantic-convention names where one exists, else
// weir.*. Empty fields are left out.
func attributes(ev *auditlog.Event) []attribute.KeyValue {
	a := make(list, 0, 40)
	a.text("weir.kind", string(ev.Kind))
	a.text("weir.flow", ev.Flow)
	a.text(semconv.SessionIDKey, ev.Session)
	a.text("weir.backend", ev.Backend)
	a.text("weir.protocol", ev.Protocol)
	a.text("weir.login", ev.Login)
	a.text("weir.verdict", ev.Verdict)
	a.text("weir.rule", ev.Rule)
	a.text("weir.policy", ev.Policy)
	a.text("weir.reason", ev.Reason)
	a.text("weir.assurance", ev.Assurance)
	if ev.Seq != 0 {
		a = append(a, attribute.Int64("weir.seq", int64(ev.Seq)))
	}
	a.database(ev)
	a.address(semconv.ServerAddressKey, semconv.ServerPortKey, ev.Destination)
	if ev.Upstream != nil {
		a.address(semconv.NetworkPeerAddressKey, semconv.NetworkPeerPortKey, ev.Upstream.Address)
	}
	a.principal(ev.Principal)
	a.process(ev.Process)
	a.action(ev)
	if ap := ev.Approval; ap != nil {
		a.text("weir.approval.id", ap.ID)
		a.text("weir.approval.requester", ap.Requester)
		a.text("weir.approval.decided", ap.Decided)
		a.texts("weir.approval.approvers", ap.Approvers)
	}
	return a
}

type list []attribute.KeyValue

func (a *list) text(key attribute.Key, v string) {
	if v != "" {
		*a = append(*a, key.String(v))
	}
}

func (a *list) texts(key attribute.Key, v []string) {
	if len(v) > 0 {
		*a = append(*a, key.StringSlice(v))
	}
}

// address splits ip:port.
func (a *list) address(host, port attribute.Key, address string) {
	h, p, err := net.SplitHostPort(address)
	if err != nil {
		return
	}
	a.text(host, h)
	if n, err := strconv.Atoi(p); err == nil {
		*a = append(*a, port.Int(n))
	}
}

// dbSystems are the values of db.system.name for our protocols.
var dbSystems = map[string]attribute.KeyValue{
	"postgres": semconv.DBSystemNamePostgreSQL,
	"mysql":    semconv.DBSystemNameMySQL,
}

func (a *list) database(ev *auditlog.Event) {
	system, ok := dbSystems[ev.Protocol]
	if !ok {
		return
	}
	*a = append(*a, system)
	a.text(semconv.DBNamespaceKey, ev.Database)
	if act := ev.Action; act != nil {
		a.text(semconv.DBQueryTextKey, act.Text)
		if len(act.Verbs) == 1 {
			a.text(semconv.DBOperationNameKey, act.Verbs[0])
		}
		if len(act.Resources) == 1 && !strings.Contains(act.Resources[0], ":") {
			a.text(semconv.DBCollectionNameKey, act.Resources[0])
		}
	}
	if r := ev.Result; r != nil && ev.Action != nil {
		a.text(semconv.DBResponseStatusCodeKey, r.Code)
		if r.Status == auditlog.StatusOK {
			*a = append(*a, semconv.DBResponseReturnedRows(int(r.Rows)))
		}
	}
}

func (a *list) principal(p *auditlog.Principal) {
	if p == nil {
		return
	}
	a.text(semconv.UserIDKey, p.Subject)
	if strings.Contains(p.User, "@") {
		a.text(semconv.UserEmailKey, p.User)
	} else {
		a.text(semconv.UserNameKey, p.User)
	}
	a.texts(semconv.UserRolesKey, p.Groups)
	a.text("weir.principal.issuer", p.Issuer)
	a.text("weir.principal.kind", p.Kind)
	a.text("weir.principal.token_id", p.TokenID)
	if p.Actor != nil {
		a.text("weir.principal.actor", p.Actor.Subject)
	}
}

func (a *list) process(p *auditlog.Process) {
	if p == nil {
		return
	}
	*a = append(*a, semconv.ProcessPID(p.PID), semconv.ProcessUserID(int(p.UID)))
	a.text(semconv.ProcessExecutablePathKey, p.Exe)
	a.text(semconv.ProcessExecutableNameKey, p.Comm)
	a.text(semconv.ProcessLinuxCgroupKey, p.Cgroup)
	if p.LoginUID != nil {
		*a = append(*a, attribute.Int64("weir.process.loginuid", int64(*p.LoginUID)))
	}
	if p.AuditSession != nil {
		*a = append(*a, attribute.Int64("weir.process.audit_session", int64(*p.AuditSession)))
	}
	if p.Pod != nil {
		a.text(semconv.K8SNamespaceNameKey, p.Pod.Namespace)
		a.text(semconv.K8SPodNameKey, p.Pod.Name)
		a.text(semconv.K8SPodUIDKey, p.Pod.UID)
		a.text(semconv.K8SContainerNameKey, p.Pod.Container)
	}
}

func (a *list) action(ev *auditlog.Event) {
	act := ev.Action
	if act == nil {
		return
	}
	a.text("weir.action.id", act.ID)
	a.text("weir.action.phase", act.Phase)
	a.text("weir.action.digest", act.Digest)
	a.texts("weir.action.verbs", act.Verbs)
	a.texts("weir.action.resources", act.Resources)
	if r := ev.Result; r != nil {
		a.text("weir.result.status", r.Status)
		*a = append(*a, attribute.Int64("weir.result.bytes", r.Bytes), attribute.Int64("weir.result.duration_us", r.DurationUS))
	}
	if n := maskCount(ev); n > 0 {
		*a = append(*a, attribute.Int64("weir.masks.count", n))
	}
}

func maskCount(ev *auditlog.Event) int64 {
	var n int64
	for _, m := range ev.Masks {
		n += m.Count
	}
	return n
}
