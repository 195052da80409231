package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// scope names this package as the source of logs, spans and metrics.
const scope = "github.com/weirproxy/weir/internal/telemetry"

// maxAttributes is above what attributes can make; the SDK's 128 is too, but may
// be lowered by OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT.
const maxAttributes = 128

// logs turns events into log records and exports them.
type logs struct {
	exporter sdklog.Exporter
	logger   log.Logger
	batch    batcher[sdklog.Record]
}

func newLogs(ctx context.Context, exporter sdklog.Exporter, res *resource.Resource, t *Telemetry) *logs {
	l := &logs{exporter: exporter}
	l.batch = batcher[sdklog.Record]{
		size: bodySize,
		export: func(ctx context.Context, r []sdklog.Record) error {
			return exporter.Export(ctx, r)
		},
		lost: func(n int) { t.lost.logs.Add(int64(n)) },
		done: func(r []sdklog.Record) {
			for _, x := range r {
				t.release(bodySize(x))
			}
		},
		problem: t.problem("logs"),
	}
	l.batch.start(ctx)
	l.logger = sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(l),
		sdklog.WithAttributeCountLimit(maxAttributes), sdklog.WithAttributeValueLengthLimit(-1)).Logger(scope)
	return l
}

func bodySize(r sdklog.Record) int { return len(r.Body().AsString()) }

func (l *logs) emit(ev *auditlog.Event, body string) {
	var r log.Record
	r.SetEventName("weir." + string(ev.Kind))
	r.SetTimestamp(ev.Time)
	r.SetObservedTimestamp(ev.Time)
	r.SetBody(attribute.StringValue(body))
	r.SetSeverity(severity(ev))
	r.SetSeverityText(severity(ev).String())
	r.AddAttributes(attributes(ev)...)
	ctx := context.Background()
	if ev.Flow != "" {
		ctx = flowContext(ev.Flow)
	}
	l.logger.Emit(ctx, r)
}

func severity(ev *auditlog.Event) log.Severity {
	switch {
	case ev.Kind == auditlog.Gap:
		return log.SeverityError
	case ev.Kind == auditlog.FlowRefused, ev.Kind == auditlog.BypassBlocked, ev.Verdict == "deny":
		return log.SeverityWarn
	}
	return log.SeverityInfo
}

// OnEmit implements sdklog.Processor.
func (l *logs) OnEmit(_ context.Context, r *sdklog.Record) error {
	l.batch.add(r.Clone())
	return nil
}

// Enabled implements sdklog.Processor.
func (*logs) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

// Shutdown implements sdklog.Processor; close is what ends us.
func (*logs) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdklog.Processor.
func (*logs) ForceFlush(context.Context) error { return nil }

func (l *logs) close(ctx context.Context) error {
	l.batch.close()
	return l.exporter.Shutdown(ctx)
}
