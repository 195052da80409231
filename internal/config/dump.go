package config

import (
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Redacted is a copy that can be shown: of secret references only the scheme is
// left when the text behind it may hold a secret (exec:), of webhooks the host,
// of header values nothing.
func (c *Config) Redacted() *Config {
	r := *c
	r.Identity.Issuers = append([]Issuer(nil), c.Identity.Issuers...)
	for i := range r.Identity.Issuers {
		r.Identity.Issuers[i].ClientSecret = redactRef(r.Identity.Issuers[i].ClientSecret)
	}
	r.Backends = append([]Backend(nil), c.Backends...)
	for i := range r.Backends {
		b := &r.Backends[i]
		b.Credentials = append([]Credential(nil), b.Credentials...)
		for j := range b.Credentials {
			cr := &b.Credentials[j]
			cr.Password, cr.PrivateKey, cr.BearerToken = redactRef(cr.Password), redactRef(cr.PrivateKey), redactRef(cr.BearerToken)
			cr.Headers = redactValues(cr.Headers, redactRef)
		}
	}
	r.Approvals.Notify = append([]Notifier(nil), c.Approvals.Notify...)
	for i := range r.Approvals.Notify {
		n := &r.Approvals.Notify[i]
		n.Webhook, n.Secret = redactURL(n.Webhook), redactRef(n.Secret)
		if n.Slack != nil {
			n.Slack = &Slack{redactRef(n.Slack.AppToken), redactRef(n.Slack.BotToken), n.Slack.Channel, redactURL(n.Slack.APIURL)}
		}
	}
	r.Audit.OTLP.Headers = redactValues(c.Audit.OTLP.Headers, func(string) string { return hidden })
	return &r
}

const hidden = "***"

func redactRef(ref string) string {
	scheme, rest, ok := strings.Cut(ref, ":")
	switch {
	case ref == "":
		return ""
	case !ok:
		return hidden
	case scheme == "file" || scheme == "env" || scheme == "age" || scheme == "bao":
		return scheme + ":" + rest // names a place
	case scheme == "exec":
		return "exec:" + hidden // arguments may hold anything
	}
	return hidden
}

func redactURL(text string) string {
	u, err := url.Parse(text)
	if text == "" {
		return ""
	}
	if err != nil {
		return hidden
	}
	return u.Scheme + "://" + u.Host + "/" + hidden
}

func redactValues(m map[string]string, redact func(string) string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = redact(v)
	}
	return out
}

// Dump is the configuration in force, defaults included, as YAML that can be
// shown; see Redacted.
func (c *Config) Dump() ([]byte, error) { return yaml.Marshal(c.Redacted()) }
