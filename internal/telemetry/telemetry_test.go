package telemetry

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlplogs "go.opentelemetry.io/proto/otlp/logs/v1"
	otlpmetrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	otlptrace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// receiver is an OTLP/HTTP receiver: it decodes what it gets with the
// specification's own messages and refuses what does not decode.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	records  []*otlplogs.LogRecord
	resource *common.AnyValue // service.name of the logs
	spans    []*otlptrace.Span
	metrics  map[string]*otlpmetrics.Metric
	headers  []string
	block    chan struct{} // requests wait for it when set
	refuse   int
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{metrics: map[string]*otlpmetrics.Metric{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	block, refuse := r.block, r.refuse
	r.headers = append(r.headers, req.Header.Get("X-Scope"))
	r.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-req.Context().Done():
			return
		}
	}
	if refuse != 0 {
		w.WriteHeader(refuse)
		return
	}
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(req.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body = z
	}
	b, err := io.ReadAll(body)
	if err != nil || req.Header.Get("Content-Type") != "application/x-protobuf" || !r.take(req.URL.Path, b) {
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (r *receiver) take(path string, b []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch path {
	case "/base/v1/logs":
		var m collogs.ExportLogsServiceRequest
		if proto.Unmarshal(b, &m) != nil {
			return false
		}
		for _, rl := range m.ResourceLogs {
			r.resource = attr(rl.Resource.Attributes, "service.name")
			for _, sl := range rl.ScopeLogs {
				r.records = append(r.records, sl.LogRecords...)
			}
		}
	case "/base/v1/traces":
		var m coltrace.ExportTraceServiceRequest
		if proto.Unmarshal(b, &m) != nil {
			return false
		}
		for _, rs := range m.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
	case "/base/v1/metrics":
		var m colmetrics.ExportMetricsServiceRequest
		if proto.Unmarshal(b, &m) != nil {
			return false
		}
		for _, rm := range m.ResourceMetrics {
			for _, sm := range rm.ScopeMetrics {
				for _, x := range sm.Metrics {
					r.metrics[x.Name] = x
				}
			}
		}
	default:
		return false
	}
	return true
}

func attr(kvs []*common.KeyValue, key string) *common.AnyValue {
	for _, kv := range kvs {
		if kv.Key == key {
			return kv.Value
		}
	}
	return nil
}

// text is an attribute as text, "" when it is not there.
func text(kvs []*common.KeyValue, key string) string {
	switch v := attr(kvs, key).GetValue().(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *common.AnyValue_ArrayValue:
		var s []string
		for _, x := range v.ArrayValue.Values {
			s = append(s, x.GetStringValue())
		}
		return strings.Join(s, ",")
	}
	return ""
}

// sum is a counter's value over all points whose attributes hold the pairs.
func (r *receiver) sum(name string, pairs ...string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n int64
points:
	for _, p := range r.metrics[name].GetSum().GetDataPoints() {
		for i := 0; i < len(pairs); i += 2 {
			if text(p.Attributes, pairs[i]) != pairs[i+1] {
				continue points
			}
		}
		n += p.GetAsInt()
	}
	return n
}

func start(t *testing.T, c Config) *Telemetry {
	t.Helper()
	c.Node = "node-a"
	tel, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = tel.Shutdown(ctx)
	})
	return tel
}

func closeAll(t *testing.T, tel *Telemetry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := tel.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

var begin = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func newULID(at time.Duration) string {
	return ulid.MustNew(ulid.Timestamp(begin.Add(at)), ulid.DefaultEntropy()).String()
}

// story is a flow with an allowed and a denied action and one that was lost.
func story() (id string, actions []string, events []*auditlog.Event) {
	id, actions = newULID(0), []string{newULID(1), newULID(2), newULID(3)}
	login := uint32(1000)
	base := func(at time.Duration, kind auditlog.Kind) *auditlog.Event {
		return &auditlog.Event{V: 1, Seq: uint64(len(events) + 1), Time: begin.Add(at), Node: "node-a", Kind: kind, Flow: id, Session: "s1",
			Backend: "orders", Protocol: "postgres", Destination: "10.1.2.3:5432", Database: "shop", Login: "weir_app",
			Principal: &auditlog.Principal{Issuer: "https://idp.example.com", Subject: "42", User: "ann@example.com", Groups: []string{"developer", "dba"}, Kind: "human"}}
	}
	add := func(ev *auditlog.Event) { events = append(events, ev) }
	open := base(time.Second, auditlog.FlowOpen)
	open.Upstream, open.Assurance = &auditlog.Upstream{Address: "10.9.9.9:5433", PID: 7}, "inspected"
	open.Process = &auditlog.Process{PID: 12, Exe: "/usr/bin/psql", Comm: "psql", UID: 1000, LoginUID: &login, Pod: &auditlog.Pod{Namespace: "ns", Name: "pod", UID: "u"}}
	add(open)
	for i, verdict := range []string{"allow", "deny", "allow"} {
		ev := base(2*time.Second, auditlog.ActionEvent)
		ev.Action = &auditlog.Action{ID: actions[i], Phase: auditlog.PhaseIntent, Verbs: []string{"select"}, Resources: []string{"shop.orders"}, Text: "select * from shop.orders", Digest: "sha256:x"}
		ev.Verdict, ev.Rule, ev.Policy = verdict, "r", "sha256:p"
		if verdict == "deny" {
			ev.Result = &auditlog.Result{Status: auditlog.StatusDenied}
		}
		add(ev)
	}
	out := base(5*time.Second, auditlog.ActionEvent)
	out.Action = &auditlog.Action{ID: actions[0], Phase: auditlog.PhaseOutcome}
	out.Result = &auditlog.Result{Status: auditlog.StatusOK, Code: "SELECT", Rows: 3, Bytes: 99, DurationUS: 2_000_000}
	out.Masks = []auditlog.Mask{{Column: "shop.orders.card", Method: "last4", Source: "origin", Count: 3}}
	add(out)
	end := base(9*time.Second, auditlog.FlowClose)
	end.Reason = "client_closed"
	add(end)
	return id, actions, events
}

func TestEveryEventIsALogRecord(t *testing.T) {
	r := newReceiver(t)
	tel := start(t, Config{Endpoint: r.URL + "/base", Headers: map[string]string{"X-Scope": "weir"}})
	id, _, events := story()
	for _, ev := range events {
		raw, err := json.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		tel.Consume(ev, raw)
		clear(raw) // the caller may use it again
	}
	closeAll(t, tel)

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) != len(events) || r.resource.GetStringValue() != "weir" {
		t.Fatalf("%d records for %d events, service %v", len(r.records), len(events), r.resource)
	}
	u, _ := ulid.ParseStrict(id)
	for i, rec := range r.records {
		want, _ := json.Marshal(events[i])
		if got := rec.Body.GetStringValue(); got != string(want) {
			t.Errorf("record %d: body %s", i, got)
		}
		if rec.EventName != "weir."+string(events[i].Kind) || rec.TimeUnixNano != uint64(events[i].Time.UnixNano()) || hex.EncodeToString(rec.TraceId) != hex.EncodeToString(u[:]) {
			t.Errorf("record %d: %s at %d in %x", i, rec.EventName, rec.TimeUnixNano, rec.TraceId)
		}
	}
	got := map[string]string{}
	for _, kv := range append(r.records[0].Attributes, r.records[1].Attributes...) {
		got[kv.Key] = text([]*common.KeyValue{kv}, kv.Key)
	}
	for key, want := range map[string]string{"db.system.name": "postgresql", "db.namespace": "shop", "db.query.text": "select * from shop.orders",
		"db.operation.name": "select", "db.collection.name": "shop.orders", "server.address": "10.1.2.3", "server.port": "5432",
		"network.peer.address": "10.9.9.9", "network.peer.port": "5433", "user.email": "ann@example.com", "user.id": "42", "user.roles": "developer,dba",
		"process.pid": "12", "process.executable.path": "/usr/bin/psql", "k8s.namespace.name": "ns", "session.id": "s1",
		"weir.flow": id, "weir.backend": "orders", "weir.verdict": "allow", "weir.rule": "r", "weir.policy": "sha256:p", "weir.assurance": "inspected",
		"weir.action.verbs": "select", "weir.process.loginuid": "1000", "weir.kind": "action"} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if sev := r.records[2].SeverityNumber; sev != otlplogs.SeverityNumber_SEVERITY_NUMBER_WARN {
		t.Errorf("a denial is %v", sev)
	}
	for _, h := range r.headers {
		if h != "weir" {
			t.Errorf("header %q", h)
		}
	}
	if tel.queued.Load() != 0 {
		t.Errorf("%d bytes of the budget never came back", tel.queued.Load())
	}
}

func TestFlowIsATraceAndActionsAreItsSpans(t *testing.T) {
	r := newReceiver(t)
	tel := start(t, Config{Endpoint: r.URL + "/base"})
	id, actions, events := story()
	for _, ev := range events {
		tel.Consume(ev, nil)
	}
	closeAll(t, tel)

	r.mu.Lock()
	defer r.mu.Unlock()
	type row struct {
		Name, Parent, Status string
		Start, End           time.Duration
	}
	got := map[string]row{}
	for _, s := range r.spans {
		if trace := traceID(id); string(s.TraceId) != string(trace[:]) {
			t.Errorf("span %s in trace %x", s.Name, s.TraceId)
		}
		got[hex.EncodeToString(s.SpanId)] = row{s.Name, hex.EncodeToString(s.ParentSpanId), s.Status.GetMessage(),
			time.Unix(0, int64(s.StartTimeUnixNano)).Sub(begin), time.Unix(0, int64(s.EndTimeUnixNano)).Sub(begin)}
	}
	root := spanID(id).String()
	want := map[string]row{
		root:                        {"flow orders", "", "", 0, 9 * time.Second},
		spanID(actions[0]).String(): {"select orders", root, "", 3 * time.Second, 5 * time.Second},
		spanID(actions[1]).String(): {"select orders", root, "denied", 2 * time.Second, 2 * time.Second},
		spanID(actions[2]).String(): {"select orders", root, "lost", 2 * time.Second, 9 * time.Second},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, s := range r.spans {
		if hex.EncodeToString(s.SpanId) == spanID(actions[0]).String() {
			if text(s.Attributes, "db.query.text") == "" || text(s.Attributes, "db.response.returned_rows") != "3" || text(s.Attributes, "weir.result.status") != "ok" {
				t.Errorf("attributes %v", s.Attributes)
			}
		}
	}
	if tel.spans.count != 0 || len(tel.spans.open) != 0 {
		t.Errorf("%d actions still open", tel.spans.count)
	}
}

func TestOutcomeWithoutItsIntent(t *testing.T) {
	r := newReceiver(t)
	tel := start(t, Config{Endpoint: r.URL + "/base"})
	_, actions, events := story()
	tel.Consume(events[4], nil)
	closeAll(t, tel)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spans) != 1 || hex.EncodeToString(r.spans[0].SpanId) != spanID(actions[0]).String() ||
		r.spans[0].EndTimeUnixNano-r.spans[0].StartTimeUnixNano != uint64(2*time.Second) {
		t.Errorf("%v", r.spans)
	}
}

func TestOpenActionsAreBounded(t *testing.T) {
	tel := start(t, Config{Endpoint: newReceiver(t).URL + "/base"})
	s := tel.spans
	for i := range maxOpenActions + 10 {
		s.record(&auditlog.Event{Kind: auditlog.ActionEvent, Flow: fmt.Sprint(i % 100), Action: &auditlog.Action{ID: fmt.Sprint(i), Phase: auditlog.PhaseIntent}})
	}
	if s.count != maxOpenActions {
		t.Errorf("%d kept", s.count)
	}
	for i := range 100 {
		s.record(&auditlog.Event{Kind: auditlog.FlowClose, Flow: fmt.Sprint(i)})
	}
	if s.count != 0 || len(s.open) != 0 {
		t.Errorf("%d left", s.count)
	}
}

func TestMetrics(t *testing.T) {
	r := newReceiver(t)
	tel := start(t, Config{Endpoint: r.URL + "/base"})
	_, _, events := story()
	for _, ev := range events {
		tel.Consume(ev, nil)
	}
	tel.Consume(&auditlog.Event{Kind: auditlog.FlowRefused, Backend: "orders", Protocol: "postgres", Reason: "no_identity", Time: begin}, nil)
	tel.Consume(&auditlog.Event{Kind: auditlog.FlowClose, Backend: "orders", Protocol: "postgres", Reason: "agent_lost", Time: begin}, nil)
	closeAll(t, tel)
	for _, c := range []struct {
		name  string
		want  int64
		pairs []string
	}{
		{"weir.events", 8, nil},
		{"weir.flows.opened", 1, []string{"backend", "orders", "protocol", "postgres"}},
		{"weir.flows.refused", 1, []string{"reason", "no_identity"}},
		{"weir.flows.closed", 1, []string{"reason", "client_closed"}},
		{"weir.flows.active", 0, nil},
		{"weir.actions", 2, []string{"verb", "select", "verdict", "allow"}},
		{"weir.actions", 1, []string{"verdict", "deny"}},
		{"weir.result.rows", 3, nil},
		{"weir.masks", 3, []string{"method", "last4", "source", "origin"}},
		{"weir.telemetry.lost", 0, nil},
	} {
		if got := r.sum(c.name, c.pairs...); got != c.want {
			t.Errorf("%s%v is %d, want %d", c.name, c.pairs, got, c.want)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.metrics["weir.action.duration"].GetHistogram().GetDataPoints()
	if len(h) != 1 || h[0].Count != 1 || h[0].GetSum() != 2 {
		t.Errorf("durations %v", h)
	}
	if f := r.metrics["weir.flow.duration"].GetHistogram().GetDataPoints(); len(f) != 1 || f[0].GetSum() != 9 {
		t.Errorf("flow durations %v", f)
	}
}

func TestApprovalMetrics(t *testing.T) {
	r := newReceiver(t)
	tel := start(t, Config{Endpoint: r.URL + "/base"})
	consume := func(kind auditlog.Kind, reason string, a auditlog.Approval) {
		tel.Consume(&auditlog.Event{Kind: kind, Backend: "orders", Protocol: "postgres", Rule: "drops", Reason: reason, Time: begin, Approval: &a}, nil)
	}
	for range 3 {
		consume(auditlog.ApprovalRequest, "", auditlog.Approval{Status: "pending"})
	}
	consume(auditlog.ApprovalDecide, "no", auditlog.Approval{Decided: "refused", Proof: "idp", WaitedUS: 5})
	consume(auditlog.ApprovalDecide, "", auditlog.Approval{Decided: "approved", Proof: "idp", Status: "pending", WaitedUS: 5})
	consume(auditlog.ApprovalDecide, "", auditlog.Approval{Decided: "approved", Proof: "idp", Status: "approved", WaitedUS: 3e6})
	consume(auditlog.ApprovalExpire, "expired", auditlog.Approval{Status: "expired", WaitedUS: 4e6})
	consume(auditlog.ApprovalExpire, "withdrawn", auditlog.Approval{Status: "withdrawn"})               // a grant
	consume(auditlog.ApprovalExpire, "agent_lost", auditlog.Approval{Status: "withdrawn", WaitedUS: 9}) // of an earlier agent
	closeAll(t, tel)
	for _, c := range []struct {
		name  string
		want  int64
		pairs []string
	}{
		{"weir.approval.requests", 3, []string{"rule", "drops"}},
		{"weir.approval.pending", 1, nil},
		{"weir.approval.decisions", 2, []string{"decided", "approved", "proof", "idp"}},
		{"weir.approval.decisions", 1, []string{"decided", "refused"}},
	} {
		if got := r.sum(c.name, c.pairs...); got != c.want {
			t.Errorf("%s%v is %d, want %d", c.name, c.pairs, got, c.want)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var waited float64
	for _, p := range r.metrics["weir.approval.wait"].GetHistogram().GetDataPoints() {
		waited += p.GetSum()
	}
	if waited != 7 {
		t.Errorf("%g s of waiting", waited)
	}
}

func scrape(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestPrometheusWithoutAnEndpoint(t *testing.T) {
	tel := start(t, Config{})
	_, _, events := story()
	for _, ev := range events {
		tel.Consume(ev, nil)
	}
	closing := time.Now().Add(20 * time.Second)
	const want = `weir_actions_total{backend="orders",protocol="postgres",verb="select",verdict="allow"} 2`
	for !strings.Contains(scrape(t, tel), want) {
		if time.Now().After(closing) {
			t.Fatalf("no %s in\n%s", want, scrape(t, tel))
		}
		time.Sleep(5 * time.Millisecond)
	}
	if tel.logs != nil || tel.spans != nil {
		t.Error("something was started for an endpoint that is not there")
	}
	if out := scrape(t, tel); !strings.Contains(out, `weir_telemetry_lost_total{signal="events"} 0`) || !strings.Contains(out, "go_goroutines") {
		t.Error(out)
	}
}

func TestSlowCollectorHoldsNobodyUpAndLossesAreCounted(t *testing.T) {
	r := newReceiver(t)
	r.block = make(chan struct{})
	tel := start(t, Config{Endpoint: r.URL + "/base"})
	body := []byte(`{"x":"` + strings.Repeat("x", 64<<10) + `"}`)
	const n = 4000 // 256 MB, far above what may wait
	for range n {
		tel.Consume(&auditlog.Event{Kind: auditlog.PolicyLoad, Time: begin}, body)
		if q := tel.queued.Load(); q > maxQueuedBytes+int64(len(body)) {
			t.Fatalf("%d bytes wait", q)
		}
	}
	lost := tel.lost.events.Load() + tel.lost.logs.Load()
	if lost == 0 {
		t.Error("no loss was counted")
	}
	close(r.block)
	closeAll(t, tel)
	r.mu.Lock()
	got := len(r.records)
	r.mu.Unlock()
	lost = tel.lost.events.Load() + tel.lost.logs.Load()
	if int64(got)+lost != n {
		t.Errorf("%d arrived and %d are lost of %d", got, lost, n)
	}
	if r.sum("weir.telemetry.lost") != lost {
		t.Errorf("the metric says %d, lost are %d", r.sum("weir.telemetry.lost"), lost)
	}
}

func TestRefusingCollector(t *testing.T) {
	r := newReceiver(t)
	r.refuse = http.StatusBadRequest
	var log syncBuffer
	tel := start(t, Config{Endpoint: r.URL + "/base", Log: slog.New(slog.NewJSONHandler(&log, nil))})
	_, _, events := story()
	for _, ev := range events {
		tel.Consume(ev, nil)
	}
	closeAll(t, tel)
	if tel.lost.logs.Load() != int64(len(events)) || tel.lost.spans.Load() != 4 {
		t.Errorf("lost %d logs, %d spans", tel.lost.logs.Load(), tel.lost.spans.Load())
	}
	if out := log.String(); strings.Count(out, "does not take") != 3 || strings.Contains(out, "shop.orders") {
		t.Errorf("log: %s", out)
	}
	tel.Consume(events[0], nil)
	if tel.lost.events.Load() != 1 {
		t.Error("an event after Close was not counted")
	}
}

func TestCloseEndsWithItsContext(t *testing.T) {
	r := newReceiver(t)
	r.block = make(chan struct{})
	defer close(r.block)
	tel := start(t, Config{Endpoint: r.URL + "/base"})
	_, _, events := story()
	for _, ev := range events {
		tel.Consume(ev, nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_ = tel.Shutdown(ctx)
	if tel.lost.logs.Load() != int64(len(events)) {
		t.Errorf("lost %d", tel.lost.logs.Load())
	}
}

func TestBadEndpoint(t *testing.T) {
	for _, e := range []string{"127.0.0.1:4318", "grpc://x", "http://", "://"} {
		if tel, err := Open(context.Background(), Config{Endpoint: e}); err == nil {
			_ = tel.Close()
			t.Errorf("%q was taken", e)
		}
	}
}

func TestNames(t *testing.T) {
	a := list{}
	a.principal(&auditlog.Principal{Subject: "s", User: "ann", Actor: &auditlog.Actor{Subject: "bot"}})
	got := map[string]string{}
	for _, kv := range a {
		got[string(kv.Key)] = kv.Value.String()
	}
	if d := cmp.Diff(map[string]string{"user.id": "s", "user.name": "ann", "weir.principal.actor": "bot"}, got); d != "" {
		t.Error(d)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func BenchmarkConsume(b *testing.B) {
	tel, err := Open(context.Background(), Config{Node: "n"})
	if err != nil {
		b.Fatal(err)
	}
	defer tel.Close()
	_, _, events := story()
	raw, _ := json.Marshal(events[1])
	b.ReportAllocs()
	for b.Loop() {
		tel.Consume(events[1], raw)
	}
}
