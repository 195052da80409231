// Package config is Weir's configuration file: one documented struct, a strict
// decoder, defaults and a validation that reports everything at once, each with
// its line. It owns no other meaning of the values, resolves no secret and no
// name, and looks at no file but the one that Load is given.
//
// Secrets are written as references (file:, env:, exec:, age:, bao:), which
// package credential resolves. Error texts never repeat such a value, because it
// may be a secret that somebody wrote in place of a reference.
package config

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/strictyaml"
)

// Config is the whole file (contract, section 2). Keys that are left out have
// the defaults given here after Parse.
type Config struct {
	// Node names this machine in the audit log. Default: the host name.
	Node string `yaml:"node"`
	// StateDir holds the log, keys and bindings. Default: /var/lib/weir.
	StateDir string `yaml:"state_dir"`
	// RunDir holds agent.sock and pid. Default: /run/weir.
	RunDir    string    `yaml:"run_dir"`
	Intercept Intercept `yaml:"intercept"`
	Identity  Identity  `yaml:"identity"`
	Backends  []Backend `yaml:"backends"`
	// PolicyFiles together are one policy. Default: /etc/weir/policy.yaml.
	PolicyFiles []string  `yaml:"policy_files"`
	Approvals   Approvals `yaml:"approvals"`
	Audit       Audit     `yaml:"audit"`
	Hub         Hub       `yaml:"hub"`
	Console     Console   `yaml:"console"`
	Secrets     Secrets   `yaml:"secrets"`
}

// Mode is what the agent does about a denial.
type Mode string

// Modes of interception.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe" // record what would be refused, refuse nothing
)

// Intercept is the kernel half.
type Intercept struct {
	Mode Mode `yaml:"mode"` // default: enforce
	// Cgroups are the cgroup v2 directories to attach at. Default: the kubepods,
	// user and system slices that exist, else the v2 root.
	Cgroups []string `yaml:"cgroups"`
	// BPFFS is where programs, links and maps are pinned. Default: /sys/fs/bpf/weir.
	BPFFS string `yaml:"bpffs"`
	// ProxyPort is the loopback port in each network namespace. Default: 15001.
	ProxyPort uint16 `yaml:"proxy_port"`
}

// Identity is who issues the tokens that count.
type Identity struct {
	Issuers    []Issuer           `yaml:"issuers"`
	Kubernetes KubernetesIdentity `yaml:"kubernetes"`
}

// Issuer is an OpenID Connect provider.
type Issuer struct {
	Issuer   string `yaml:"issuer"` // the exact "iss"; https, or http on loopback
	ClientID string `yaml:"client_id"`
	// ClientSecret is a secret reference. Empty: a public client. Only the console
	// uses it; weir login is a public client always (RFC 8252, 8.4).
	ClientSecret string   `yaml:"client_secret"`
	Audiences    []string `yaml:"audiences"` // default: client_id
	// UserClaim names the user. Empty: email, else sub.
	UserClaim string `yaml:"user_claim"`
	// GroupsClaim lists the groups. Default: groups.
	GroupsClaim string    `yaml:"groups_claim"`
	Kind        flow.Kind `yaml:"kind"`    // what its tokens stand for; default: human
	CAFile      string    `yaml:"ca_file"` // PEM; empty: the system's
}

// KubernetesIdentity identifies pods by their service account tokens.
type KubernetesIdentity struct {
	Enabled bool `yaml:"enabled"`
}

// Backend is a protected destination.
type Backend struct {
	Name      string        `yaml:"name"`
	Protocol  flow.Protocol `yaml:"protocol"`
	Addresses []Address     `yaml:"addresses"`
	// Dial is host:port to go to. Empty: where the client wanted to go.
	Dial string `yaml:"dial"`
	TLS  TLS    `yaml:"tls"`
	// Credentials: the first entry whose groups match is used; one without
	// groups is for everybody.
	Credentials []Credential `yaml:"credentials"`
}

// Names are the host names among the addresses, in lower case.
func (b *Backend) Names() []string {
	var names []string
	for _, a := range b.Addresses {
		if a.Host != "" {
			names = append(names, a.Host)
		}
	}
	return names
}

// Modes of TLS to a backend.
const (
	TLSDisable    = "disable"
	TLSPrefer     = "prefer"
	TLSRequire    = "require"
	TLSVerifyFull = "verify-full"
)

// TLS is how the backend is spoken to.
type TLS struct {
	// Mode is disable, prefer, require or verify-full. Default: verify-full when
	// CAFile is set, else prefer.
	Mode       string `yaml:"mode"`
	CAFile     string `yaml:"ca_file"`
	ServerName string `yaml:"server_name"`
}

// Credential is one account at a backend. Password, PrivateKey, BearerToken and
// the values of Headers are secret references.
type Credential struct {
	Groups      []string          `yaml:"groups"`
	Username    string            `yaml:"username"`
	Password    string            `yaml:"password"`     // postgres, mysql, ssh, http
	PrivateKey  string            `yaml:"private_key"`  // ssh
	BearerToken string            `yaml:"bearer_token"` // kubernetes, http
	Headers     map[string]string `yaml:"headers"`      // kubernetes, http
}

// Duration is a length of time with d and w among its units.
type Duration = strictyaml.Duration

// Approvals is how held actions are brought to people.
type Approvals struct {
	// Timeout of a request whose rule gives none. Default: 15m.
	Timeout Duration   `yaml:"timeout"`
	Notify  []Notifier `yaml:"notify"`
}

// Notifier is one way to tell people: a webhook or Slack.
type Notifier struct {
	Webhook string `yaml:"webhook"` // URL
	Secret  string `yaml:"secret"`  // reference; signs by Standard Webhooks
	// Details lets the text of statements out with a webhook. It may hold data.
	Details bool   `yaml:"details"`
	Slack   *Slack `yaml:"slack"`
}

// Slack is an app in socket mode. Both tokens are secret references.
type Slack struct {
	AppToken string `yaml:"app_token"`
	BotToken string `yaml:"bot_token"`
	Channel  string `yaml:"channel"`
	// APIURL is the base of the Web API's methods, for proxies. Empty: Slack's own.
	APIURL string `yaml:"api_url"`
}

// Durability is how safe a record is before its action goes on.
type Durability string

// Durabilities of the audit spool.
const (
	DurabilityProcess Durability = "process" // survives the death of the agent
	DurabilityDisk    Durability = "disk"    // survives the loss of power
)

// Audit is the log.
type Audit struct {
	Durability Durability `yaml:"durability"` // default: process
	// SealTo are age recipients who can open originals and recordings.
	SealTo []string `yaml:"seal_to"`
	// Retention of sealed records. Default: 400d.
	Retention Duration `yaml:"retention"`
	OTLP      OTLP     `yaml:"otlp"`
	// Witnesses cosign the sealed log's checkpoints. Empty: none.
	Witnesses []Witness `yaml:"witnesses"`
	Timestamp Timestamp `yaml:"timestamp"`
	Copy      Copy      `yaml:"copy"`
}

// Witness is one of C2SP tlog-witness.md.
type Witness struct {
	URL string `yaml:"url"` // the prefix of add-checkpoint
	Key string `yaml:"key"` // its verifier key, NAME+HASH+BASE64
}

// Timestamp is an authority of RFC 3161 that stamps a checkpoint every hour.
// Empty: none.
type Timestamp struct {
	URL    string `yaml:"url"`
	CAFile string `yaml:"ca_file"` // empty: the system's roots
}

// Copy is a bucket with Object Lock in an S3-compatible store, where the sealed
// log is copied to. Empty: nowhere.
type Copy struct {
	Endpoint  string   `yaml:"endpoint"` // URL
	Region    string   `yaml:"region"`
	Bucket    string   `yaml:"bucket"`
	Prefix    string   `yaml:"prefix"`     // of the objects' names; default: the node's name
	AccessKey string   `yaml:"access_key"` // reference
	SecretKey string   `yaml:"secret_key"` // reference
	Lock      Duration `yaml:"lock"`       // mode COMPLIANCE; default: audit.retention
	CAFile    string   `yaml:"ca_file"`    // empty: the system's roots
}

// OTLP is where every audit event, traces and metrics go. Empty: nowhere.
type OTLP struct {
	Endpoint string `yaml:"endpoint"` // base URL of OTLP/HTTP
	// Headers are sent as they stand here: a value is no reference.
	Headers map[string]string `yaml:"headers"`
}

// Hub is what many nodes share. Empty: embedded in the agent.
type Hub struct {
	Join        string `yaml:"join"`        // nats://..., tls://...
	Credentials string `yaml:"credentials"` // file
}

// Console is the web console of the hub.
type Console struct {
	// Listen is host:port. Default: 127.0.0.1:7443; "" for nowhere.
	Listen string `yaml:"listen"`
	// URL is the console's address for browsers, where sign-ins come back to
	// (URL/callback). Default: http:// and Listen, with 127.0.0.1 for a wildcard.
	URL string `yaml:"url"`
}

// Secrets says where references lead that need more than their own text.
type Secrets struct {
	// AgeIdentities are the files that open age: references.
	AgeIdentities []string `yaml:"age_identities"`
	Bao           Bao      `yaml:"bao"`
}

// Bao is OpenBao or Vault. What is empty comes from BAO_* or VAULT_* variables.
type Bao struct {
	Address   string `yaml:"address"`
	TokenFile string `yaml:"token_file"`
	CAFile    string `yaml:"ca_file"`
	Namespace string `yaml:"namespace"`
}

// Defaults of keys that are left out.
const (
	DefaultStateDir   = "/var/lib/weir"
	DefaultRunDir     = "/run/weir"
	DefaultBPFFS      = "/sys/fs/bpf/weir"
	DefaultProxyPort  = 15001
	DefaultPolicyFile = "/etc/weir/policy.yaml"
	DefaultConsole    = "127.0.0.1:7443"

	defaultApprovalTimeout = 15 * time.Minute
	defaultRetention       = 400 * 24 * time.Hour
)

// Load reads and parses a file. The error of a file that is wrong is a
// *strictyaml.Error with all of its problems; that of one that is not there is
// fs.ErrNotExist.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return parse(path, data)
}

// Parse decodes, fills in defaults and validates.
func Parse(data []byte) (*Config, error) { return parse("", data) }

func parse(name string, data []byte) (*Config, error) {
	c := new(Config)
	doc := strictyaml.Decode(data, c)
	v := validator{c: c, doc: doc}
	v.defaults()
	v.validate()
	if err := doc.Err(name); err != nil {
		return nil, err
	}
	return c, nil
}

func (v *validator) defaults() {
	c := v.c
	if c.Node == "" {
		c.Node, _ = os.Hostname() // an empty one is reported by validate
	}
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&c.StateDir, DefaultStateDir)
	set(&c.RunDir, DefaultRunDir)
	set((*string)(&c.Intercept.Mode), string(Enforce))
	set(&c.Intercept.BPFFS, DefaultBPFFS)
	if !v.doc.Has("console.listen") {
		c.Console.Listen = DefaultConsole
	}
	if host, port, err := net.SplitHostPort(c.Console.Listen); err == nil && c.Console.URL == "" {
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		c.Console.URL = "http://" + net.JoinHostPort(host, port)
	}
	set((*string)(&c.Audit.Durability), string(DurabilityProcess))
	if c.Intercept.ProxyPort == 0 && !v.doc.Has("intercept.proxy_port") {
		c.Intercept.ProxyPort = DefaultProxyPort
	}
	if c.PolicyFiles == nil {
		c.PolicyFiles = []string{DefaultPolicyFile}
	}
	if !v.doc.Has("approvals.timeout") {
		c.Approvals.Timeout = Duration(defaultApprovalTimeout)
	}
	if !v.doc.Has("audit.retention") {
		c.Audit.Retention = Duration(defaultRetention)
	}
	if c.Audit.Copy.Endpoint != "" {
		set(&c.Audit.Copy.Prefix, c.Node)
		if c.Audit.Copy.Lock == 0 {
			c.Audit.Copy.Lock = c.Audit.Retention
		}
	}
	for i := range c.Identity.Issuers {
		is := &c.Identity.Issuers[i]
		set(&is.GroupsClaim, "groups")
		set((*string)(&is.Kind), string(flow.Human))
		if is.Audiences == nil && is.ClientID != "" {
			is.Audiences = []string{is.ClientID}
		}
	}
	for i := range c.Backends {
		tls := &c.Backends[i].TLS
		if tls.CAFile != "" {
			set(&tls.Mode, TLSVerifyFull)
		}
		set(&tls.Mode, TLSPrefer)
	}
}
