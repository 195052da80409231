package telemetry

import (
	"context"
	"crypto/sha256"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/trace"
)

// Trace and span ids are derived from the ids of flows and actions, so that logs
// and spans of one flow meet without a table, across a restart too: a flow's ULID
// is its trace id, the random end of a ULID the span id of a flow or an action.

func traceID(flow string) trace.TraceID {
	if u, err := ulid.ParseStrict(flow); err == nil {
		return trace.TraceID(u)
	}
	return trace.TraceID(sum(flow)[:16])
}

func spanID(id string) trace.SpanID {
	if u, err := ulid.ParseStrict(id); err == nil && trace.SpanID(u[8:]).IsValid() {
		return trace.SpanID(u[8:])
	}
	return trace.SpanID(sum(id)[:8])
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// flowContext carries the span of a flow.
func flowContext(flow string) context.Context {
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID(flow), SpanID: spanID(flow), TraceFlags: trace.FlagsSampled}))
}

type idsKey struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

func withIDs(ctx context.Context, i ids) context.Context { return context.WithValue(ctx, idsKey{}, i) }

// idGenerator hands the SDK the ids that the context names; every span here is
// started with them.
type idGenerator struct{}

func (idGenerator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	i, _ := ctx.Value(idsKey{}).(ids)
	return i.trace, i.span
}

func (idGenerator) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	i, _ := ctx.Value(idsKey{}).(ids)
	return i.span
}
