package telemetry

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// maxOpenActions bounds the intents that wait for their outcome. An outcome
// whose intent was not kept still makes a span, without the statement.
const maxOpenActions = 16384

// spans turns flow.close and pairs of intent and outcome into spans. A span is
// made whole when it ends, so nothing is open in the SDK. It is used by one
// goroutine only.
type spans struct {
	exporter sdktrace.SpanExporter
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	batch    batcher[sdktrace.ReadOnlySpan]

	open  map[string]map[string]*auditlog.Event // flow, action: its intent
	count int                                   // of all actions in open
}

func newSpans(ctx context.Context, exporter sdktrace.SpanExporter, res *resource.Resource, t *Telemetry) *spans {
	s := &spans{exporter: exporter, open: map[string]map[string]*auditlog.Event{}}
	s.batch = batcher[sdktrace.ReadOnlySpan]{
		size: func(sdktrace.ReadOnlySpan) int { return 0 }, // texts are bounded by flow.MaxRecordedText
		export: func(ctx context.Context, r []sdktrace.ReadOnlySpan) error {
			return exporter.ExportSpans(ctx, r)
		},
		lost:    func(n int) { t.lost.spans.Add(int64(n)) },
		done:    func([]sdktrace.ReadOnlySpan) {},
		problem: t.problem("traces"),
	}
	s.batch.start(ctx)
	s.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSpanProcessor(s),
		sdktrace.WithIDGenerator(idGenerator{}), sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: maxSpanText, AttributeCountLimit: maxAttributes,
			EventCountLimit: 1, LinkCountLimit: 1, AttributePerEventCountLimit: 1, AttributePerLinkCountLimit: 1}))
	s.tracer = s.provider.Tracer(scope)
	return s
}

// maxSpanText bounds an attribute of a span, characters: the whole statement is
// in the log record.
const maxSpanText = 4096

// OnStart implements sdktrace.SpanProcessor.
func (*spans) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (s *spans) OnEnd(span sdktrace.ReadOnlySpan) { s.batch.add(span) }

// Shutdown implements sdktrace.SpanProcessor; close is what ends us.
func (*spans) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (*spans) ForceFlush(context.Context) error { return nil }

func (s *spans) close(ctx context.Context) error {
	s.batch.close()
	return s.exporter.Shutdown(ctx)
}

func (s *spans) record(ev *auditlog.Event) {
	switch ev.Kind {
	case auditlog.ActionEvent:
		s.action(ev)
	case auditlog.FlowClose:
		for _, intent := range s.open[ev.Flow] { // no outcome was recorded
			s.actionSpan(intent, intent.Time, ev.Time, auditlog.StatusLost, nil)
			s.count--
		}
		delete(s.open, ev.Flow)
		s.flowSpan(ev)
	case auditlog.FlowRefused:
		s.flowSpan(ev)
	}
}

func (s *spans) action(ev *auditlog.Event) {
	if ev.Action == nil || ev.Flow == "" {
		return
	}
	if ev.Action.Phase == auditlog.PhaseIntent {
		switch {
		case ev.Result != nil: // denied: it has no outcome of its own
			s.actionSpan(ev, ev.Time, ev.Time, ev.Result.Status, nil)
		case s.count < maxOpenActions:
			if s.open[ev.Flow] == nil {
				s.open[ev.Flow] = map[string]*auditlog.Event{}
			}
			s.open[ev.Flow][ev.Action.ID] = ev
			s.count++
		}
		return
	}
	status, took := "", time.Duration(0)
	if ev.Result != nil {
		status, took = ev.Result.Status, time.Duration(ev.Result.DurationUS)*time.Microsecond
	}
	intent := s.open[ev.Flow][ev.Action.ID]
	if intent == nil {
		s.actionSpan(ev, ev.Time.Add(-took), ev.Time, status, nil)
		return
	}
	s.actionSpan(intent, ev.Time.Add(-took), ev.Time, status, outcomeAttributes(ev))
	s.count--
	if delete(s.open[ev.Flow], ev.Action.ID); len(s.open[ev.Flow]) == 0 {
		delete(s.open, ev.Flow)
	}
}

// outcomeAttributes are those that the intent has not.
func outcomeAttributes(ev *auditlog.Event) []attribute.KeyValue {
	a := make(list, 0, 8)
	a.database(ev)
	a.action(ev)
	return a
}

func (s *spans) actionSpan(ev *auditlog.Event, start, end time.Time, status string, more []attribute.KeyValue) {
	ctx := withIDs(flowContext(ev.Flow), ids{traceID(ev.Flow), spanID(ev.Action.ID)})
	_, span := s.tracer.Start(ctx, actionName(ev), trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attributes(ev)...))
	span.SetAttributes(more...)
	if status != "" && status != auditlog.StatusOK {
		span.SetStatus(codes.Error, status)
	}
	span.End(trace.WithTimestamp(end))
}

// actionName is a span's name of low cardinality: {operation} {target}.
func actionName(ev *auditlog.Event) string {
	name := "action"
	if len(ev.Action.Verbs) > 0 {
		name = ev.Action.Verbs[0]
	}
	if ev.Backend != "" {
		name += " " + ev.Backend
	}
	return name
}

// flowSpan makes the root span of a flow's trace. The flow's id says when it
// began.
func (s *spans) flowSpan(ev *auditlog.Event) {
	start := ev.Time
	if u, err := ulid.ParseStrict(ev.Flow); err == nil {
		if t := ulid.Time(u.Time()); t.Before(start) {
			start = t
		}
	}
	ctx := withIDs(context.Background(), ids{traceID(ev.Flow), spanID(ev.Flow)})
	_, span := s.tracer.Start(ctx, "flow "+ev.Backend, trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attributes(ev)...))
	if ev.Kind == auditlog.FlowRefused {
		span.SetStatus(codes.Error, ev.Reason)
	}
	span.End(trace.WithTimestamp(ev.Time))
}
