// Package telemetry sends what the audit log records to OpenTelemetry: every
// event as a log record whose body is the event's JSON, every flow as a trace,
// every action as a span of it, and metrics of all of them, by OTLP/HTTP and for
// Prometheus.
//
// It is a copy for dashboards and alarms, not the record: it is fed beside the
// hot path, bounded in memory, never holds an action up, and drops what a
// collector does not take in time, counted in weir.telemetry.lost. The audit log
// is complete; delivery of events at least once, from a queue on disk, comes with
// the log's sealer. It sets no OpenTelemetry globals and reads none.
//
// Attributes carry the names of the OpenTelemetry semantic conventions where one
// exists, else weir.*. Statement texts and who ran them are in there: an OTLP
// endpoint must be trusted as the audit log is.
package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Config is what Telemetry is made of. Only Node is required.
type Config struct {
	// Endpoint is the base URL of an OTLP/HTTP receiver, to which /v1/logs,
	// /v1/traces and /v1/metrics are added. Empty: nothing is sent, metrics are
	// for Handler only.
	Endpoint string
	Headers  map[string]string
	Node     string
	Version  string
	Log      *slog.Logger
	// MetricInterval is the time between two exports of metrics. Default: 15 s.
	MetricInterval time.Duration
}

// Bounds of what waits for a collector.
const (
	maxQueuedEvents = 4096
	// maxQueuedBytes bounds the JSON of all events between Consume and the
	// collector's answer.
	maxQueuedBytes = 32 << 20
	// defaultInterval is between OpenTelemetry's own 60 s and what makes a live
	// dashboard.
	defaultInterval = 15 * time.Second
)

// Telemetry takes audit events. It is safe for concurrent use.
type Telemetry struct {
	log     *slog.Logger
	metrics *metrics
	spans   *spans // nil without an endpoint
	logs    *logs  // nil without an endpoint

	queue  chan item
	queued atomic.Int64 // bytes
	lost   losses

	// closing ends the worker once the queue is empty.
	closing   chan struct{}
	closeOnce sync.Once
	closed    atomic.Bool
	worker    sync.WaitGroup
	cancel    context.CancelFunc // gives up exports that run
}

type item struct {
	ev   *auditlog.Event
	body string // the event's JSON; "" without an endpoint
}

// losses counts what was dropped, by signal.
type losses struct{ events, logs, spans atomic.Int64 }

// Open starts one goroutine, and three more when there is an endpoint. Close ends
// them. A receiver that does not answer is no error.
func Open(ctx context.Context, c Config) (_ *Telemetry, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MetricInterval == 0 {
		c.MetricInterval = defaultInterval
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ended by Close only
	t := &Telemetry{log: c.Log, queue: make(chan item, maxQueuedEvents), closing: make(chan struct{}), cancel: cancel}
	defer func() {
		if err != nil {
			cancel()
			_ = t.closeParts(ctx)
		}
	}()
	res := resource.NewSchemaless(attribute.String(string(semconv.ServiceNameKey), "weir"), semconv.ServiceVersion(c.Version),
		semconv.ServiceInstanceID(c.Node), semconv.HostName(c.Node))
	var push sdkmetric.Exporter
	if c.Endpoint != "" {
		if push, err = t.connect(ctx, c, res); err != nil {
			return nil, err
		}
	}
	if t.metrics, err = newMetrics(res, &t.lost, push, c.MetricInterval, t.problem("metrics")); err != nil {
		return nil, err
	}
	t.worker.Go(t.work)
	return t, nil
}

// How a log or trace export is tried again before its batch counts as lost.
const (
	retryFirst = time.Second
	retryMost  = 10 * time.Second
	retryFor   = time.Minute
)

// connect starts the export of logs and traces and returns the exporter of
// metrics; none of them dials before it has something to send.
func (t *Telemetry) connect(ctx context.Context, c Config, res *resource.Resource) (sdkmetric.Exporter, error) {
	base, err := url.Parse(c.Endpoint)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, errors.New("audit.otlp.endpoint must be an http:// or https:// URL")
	}
	at := func(signal string) string { return base.JoinPath("v1", signal).String() }
	logExp, err := otlploghttp.New(ctx, otlploghttp.WithEndpointURL(at("logs")), otlploghttp.WithHeaders(c.Headers),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost, MaxElapsedTime: retryFor}))
	if err != nil {
		return nil, fmt.Errorf("OTLP logs: %w", err)
	}
	t.logs = newLogs(ctx, logExp, res, t)
	traceExp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(at("traces")), otlptracehttp.WithHeaders(c.Headers),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost, MaxElapsedTime: retryFor}))
	if err != nil {
		return nil, fmt.Errorf("OTLP traces: %w", err)
	}
	t.spans = newSpans(ctx, traceExp, res, t)
	metricExp, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(at("metrics")), otlpmetrichttp.WithHeaders(c.Headers),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: false})) // the next export says it again
	if err != nil {
		return nil, fmt.Errorf("OTLP metrics: %w", err)
	}
	return metricExp, nil
}

// Consume takes an event and its JSON, without waiting for anything. raw may be
// nil, it is made then; it is copied, ev is kept and must not change any more.
func (t *Telemetry) Consume(ev *auditlog.Event, raw []byte) {
	if t.closed.Load() {
		t.lost.events.Add(1)
		return
	}
	it := item{ev: ev}
	if t.logs != nil {
		if raw == nil {
			raw, _ = json.Marshal(ev)
		}
		if t.queued.Add(int64(len(raw))) > maxQueuedBytes {
			t.queued.Add(-int64(len(raw)))
			t.lost.events.Add(1)
			return
		}
		it.body = string(raw)
	}
	select {
	case t.queue <- it:
	default:
		t.release(len(it.body))
		t.lost.events.Add(1)
	}
}

// release gives the bytes of an event's JSON back to the budget.
func (t *Telemetry) release(n int) { t.queued.Add(-int64(n)) }

// work is the goroutine behind Consume.
func (t *Telemetry) work() {
	for {
		select {
		case it := <-t.queue:
			t.handle(it)
		case <-t.closing:
			for {
				select {
				case it := <-t.queue:
					t.handle(it)
				default:
					return
				}
			}
		}
	}
}

func (t *Telemetry) handle(it item) {
	t.metrics.record(it.ev)
	if t.spans != nil {
		t.spans.record(it.ev)
	}
	if t.logs != nil {
		t.logs.emit(it.ev, it.body)
	}
}

// Handler serves the metrics in the Prometheus exposition formats.
func (t *Telemetry) Handler() http.Handler { return t.metrics.handler }

// closeTimeout bounds Close: an agent that stops waits no longer for a collector.
const closeTimeout = 5 * time.Second

// Close is Shutdown within five seconds.
func (t *Telemetry) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return t.Shutdown(ctx)
}

// Shutdown sends what is queued, as far as ctx allows, and ends every goroutine.
// Events that come later are counted as lost.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var err error
	t.closeOnce.Do(func() {
		t.closed.Store(true)
		close(t.closing)
		t.worker.Wait()
		stop := context.AfterFunc(ctx, t.cancel) // exports that run end with ctx
		defer stop()
		err = t.closeParts(ctx)
		t.cancel()
	})
	return err
}

func (t *Telemetry) closeParts(ctx context.Context) error {
	var errs []error
	if t.logs != nil {
		errs = append(errs, t.logs.close(ctx))
	}
	if t.spans != nil {
		errs = append(errs, t.spans.close(ctx))
	}
	if t.metrics != nil { // last: they hold the counts of what the others lost
		errs = append(errs, t.metrics.close(ctx))
	}
	return errors.Join(errs...)
}

// problemEvery is how often a failing collector is mentioned in the log.
const problemEvery = time.Minute

// problem returns a function that logs a signal's failures, not too often. The
// errors of the exporters hold addresses and status codes, no payload of ours.
func (t *Telemetry) problem(signal string) func(error) {
	var mu sync.Mutex
	var last time.Time
	return func(err error) {
		mu.Lock()
		quiet := time.Since(last) < problemEvery
		if !quiet {
			last = time.Now()
		}
		mu.Unlock()
		if !quiet {
			t.log.Warn("the OTLP endpoint does not take "+signal+"; look at the collector", "error", firstLine(err))
		}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	if len(line) > 300 {
		line = strings.ToValidUTF8(line[:300], "") + "..."
	}
	return line
}

// The SDK's own processors drop silently when their queue is full; these two are
// ours, so that a loss is counted.
var (
	_ sdklog.Processor       = (*logs)(nil)
	_ sdktrace.SpanProcessor = (*spans)(nil)
)
