package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// maxSeries bounds the attribute sets of one instrument: verbs of HTTP are the
// client's to choose. What is above is summed under otel.metric.overflow.
const maxSeries = 2000

// durations are the buckets of the histograms, seconds: those that the semantic
// conventions advise for database clients, and longer ones for held actions.
var durations = []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600, 3600}

// agentLost is the reason of a flow.close that an agent writes for the flows of
// one that died (contract, section 4).
const agentLost = "agent_lost"

// metrics counts what events say.
type metrics struct {
	provider *sdkmetric.MeterProvider
	in       *instruments
	handler  http.Handler
}

type instruments struct {
	events, opened, refused, closed, actions, rows, bytes, masks metric.Int64Counter
	requests, decisions                                          metric.Int64Counter
	active, pending                                              metric.Int64UpDownCounter
	flowTime, actionTime, waitTime                               metric.Float64Histogram
}

// newMetrics makes the instruments; push is the exporter of an endpoint, nil for
// none.
func newMetrics(res *resource.Resource, lost *losses, push sdkmetric.Exporter, every time.Duration, problem func(error)) (*metrics, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	prom, err := promexporter.New(promexporter.WithRegisterer(reg), promexporter.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics for Prometheus: %w", err)
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(prom), sdkmetric.WithCardinalityLimit(maxSeries)}
	if push != nil {
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(quietExporter{push, problem}, sdkmetric.WithInterval(every))))
	}
	m := &metrics{provider: sdkmetric.NewMeterProvider(options...), handler: promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true})}
	if m.in, err = newInstruments(m.provider.Meter(scope), lost); err != nil {
		return nil, errors.Join(fmt.Errorf("metrics: %w", err), m.close(context.Background()))
	}
	return m, nil
}

func newInstruments(meter metric.Meter, lost *losses) (*instruments, error) {
	b := &builder{meter: meter}
	in := &instruments{
		events:     b.counter("weir.events", "{event}", "Audit events by kind"),
		opened:     b.counter("weir.flows.opened", "{flow}", "Flows whose backend accepted the login"),
		refused:    b.counter("weir.flows.refused", "{flow}", "Flows that never opened, by reason"),
		closed:     b.counter("weir.flows.closed", "{flow}", "Flows that ended, by reason"),
		actions:    b.counter("weir.actions", "{action}", "Decided actions by verb and verdict"),
		rows:       b.counter("weir.result.rows", "{row}", "Rows of the results of actions"),
		bytes:      b.counter("weir.result.size", "By", "Bytes of the results of actions"),
		masks:      b.counter("weir.masks", "{value}", "Masked values by method and source"),
		active:     b.upDown("weir.flows.active", "{flow}", "Flows that are open"),
		flowTime:   b.histogram("weir.flow.duration", "Time from a flow's capture to its end"),
		requests:   b.counter("weir.approval.requests", "{request}", "Actions that were brought before other people, by rule"),
		decisions:  b.counter("weir.approval.decisions", "{decision}", "Decisions on requests by what was decided and its proof; refused: attempts that did not count"),
		pending:    b.upDown("weir.approval.pending", "{request}", "Requests that wait for a decision"),
		waitTime:   b.histogram("weir.approval.wait", "Time from a request to its decision or other end, by its status then"),
		actionTime: b.histogram("weir.action.duration", "Time from an action's decision to its outcome"),
	}
	b.lost(lost)
	return in, b.err
}

// builder keeps the first error.
type builder struct {
	meter metric.Meter
	err   error
}

func (b *builder) keep(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) counter(name, unit, what string) metric.Int64Counter {
	c, err := b.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.keep(err)
	return c
}

func (b *builder) upDown(name, unit, what string) metric.Int64UpDownCounter {
	c, err := b.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	b.keep(err)
	return c
}

func (b *builder) histogram(name, what string) metric.Float64Histogram {
	h, err := b.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(durations...))
	b.keep(err)
	return h
}

// lost reads the counts of what telemetry itself dropped.
func (b *builder) lost(l *losses) {
	_, err := b.meter.Int64ObservableCounter("weir.telemetry.lost", metric.WithUnit("{item}"),
		metric.WithDescription("Events, log records and spans that telemetry dropped; the audit log has them"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(l.events.Load(), metric.WithAttributes(attribute.String("signal", "events")))
			o.Observe(l.logs.Load(), metric.WithAttributes(attribute.String("signal", "logs")))
			o.Observe(l.spans.Load(), metric.WithAttributes(attribute.String("signal", "traces")))
			return nil
		}))
	b.keep(err)
}

func (m *metrics) record(ev *auditlog.Event) { m.in.record(ev) }

func (in *instruments) record(ev *auditlog.Event) {
	ctx := context.Background()
	in.events.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", string(ev.Kind))))
	if ev.Backend == "" {
		return
	}
	of := []attribute.KeyValue{attribute.String("backend", ev.Backend), attribute.String("protocol", ev.Protocol)}
	with := func(kv ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributes(append(of[:len(of):len(of)], kv...)...)
	}
	reason := attribute.String("reason", ev.Reason)
	switch ev.Kind {
	case auditlog.FlowOpen:
		in.opened.Add(ctx, 1, with())
		in.active.Add(ctx, 1, with())
	case auditlog.FlowRefused:
		in.refused.Add(ctx, 1, with(reason))
	case auditlog.FlowClose:
		in.closed.Add(ctx, 1, with(reason))
		if ev.Reason == agentLost { // opened under an earlier agent
			return
		}
		in.active.Add(ctx, -1, with())
		if u, err := ulid.ParseStrict(ev.Flow); err == nil {
			in.flowTime.Record(ctx, ev.Time.Sub(ulid.Time(u.Time())).Seconds(), with())
		}
	case auditlog.ActionEvent:
		in.action(ctx, ev, with)
	case auditlog.ApprovalRequest, auditlog.ApprovalDecide, auditlog.ApprovalExpire:
		if ev.Approval != nil {
			in.approval(ctx, ev, with)
		}
	}
}

// approval follows a request. One that waited under an earlier agent was never counted
// as pending here.
func (in *instruments) approval(ctx context.Context, ev *auditlog.Event, with func(...attribute.KeyValue) metric.MeasurementOption) {
	a := ev.Approval
	switch ev.Kind {
	case auditlog.ApprovalRequest:
		in.requests.Add(ctx, 1, with(attribute.String("rule", ev.Rule)))
		in.pending.Add(ctx, 1, with())
		return
	case auditlog.ApprovalDecide:
		in.decisions.Add(ctx, 1, with(attribute.String("decided", a.Decided), attribute.String("proof", a.Proof)))
		if a.Status == "" || a.Status == "pending" {
			return
		}
	}
	if a.WaitedUS == 0 || ev.Reason == agentLost {
		return
	}
	in.pending.Add(ctx, -1, with())
	in.waitTime.Record(ctx, float64(a.WaitedUS)/1e6, with(attribute.String("status", a.Status)))
}

func (in *instruments) action(ctx context.Context, ev *auditlog.Event, with func(...attribute.KeyValue) metric.MeasurementOption) {
	if ev.Action == nil {
		return
	}
	if ev.Action.Phase == auditlog.PhaseIntent {
		verb := ""
		if len(ev.Action.Verbs) > 0 {
			verb = ev.Action.Verbs[0]
		}
		in.actions.Add(ctx, 1, with(attribute.String("verb", verb), attribute.String("verdict", ev.Verdict)))
		return
	}
	if r := ev.Result; r != nil {
		in.actionTime.Record(ctx, float64(r.DurationUS)/1e6, with(attribute.String("status", r.Status)))
		in.rows.Add(ctx, r.Rows, with())
		in.bytes.Add(ctx, r.Bytes, with())
	}
	for _, x := range ev.Masks {
		in.masks.Add(ctx, x.Count, with(attribute.String("method", x.Method), attribute.String("source", x.Source)))
	}
}

func (m *metrics) close(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// quietExporter keeps the SDK from reporting errors to its global handler, which
// writes to standard error.
type quietExporter struct {
	sdkmetric.Exporter
	problem func(error)
}

func (q quietExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	if err := q.Exporter.Export(ctx, rm); err != nil {
		q.problem(err)
	}
	return nil
}
