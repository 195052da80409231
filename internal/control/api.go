package control

import (
	"time"

	"github.com/weirproxy/weir/internal/session"
)

// Status is the answer to GET /v1/status.
type Status struct {
	Ready    bool              `json:"ready"`
	Problems []string          `json:"problems,omitempty"` // why it is not ready, or what is wrong although it is
	Node     string            `json:"node"`
	Version  string            `json:"version"`
	PID      int               `json:"pid"`
	Started  time.Time         `json:"started"`
	Mode     string            `json:"mode"` // enforce | observe
	Policy   string            `json:"policy"`
	Cgroups  []string          `json:"cgroups"`
	Links    []Link            `json:"links"`
	Networks []Network         `json:"network_namespaces"`
	Backends []Backend         `json:"backends"`
	Issuers  []Issuer          `json:"issuers"`
	Flows    int               `json:"flows"`
	Audit    Audit             `json:"audit"`
	Counters map[string]uint64 `json:"counters"`
}

// Link is one attached eBPF program.
type Link struct {
	Program string `json:"program"`
	Cgroup  string `json:"cgroup"`
	LinkID  uint32 `json:"link_id"`
	ProgID  uint32 `json:"prog_id"`
}

// Network is one network namespace that the agent listens in.
type Network struct {
	Inode     uint64   `json:"inode"`
	Cookie    uint64   `json:"cookie"`
	Listeners []string `json:"listeners"`
	Problem   string   `json:"problem,omitempty"`
}

// Backend is a configured backend and where it is found just now.
type Backend struct {
	Name         string   `json:"name"`
	Protocol     string   `json:"protocol"`
	Destinations []string `json:"destinations"`
	Problem      string   `json:"problem,omitempty"`
	// Connections since the agent started; nil when they could not be counted.
	Connections *Connections `json:"connections,omitempty"`
}

// Connections is the account of a backend's connections since the agent started: what the
// kernel handed over, and what became of it (auditlog.FlowCount).
type Connections struct {
	HandedOver uint64 `json:"handed_over"`
	Opened     uint64 `json:"opened"`
	Refused    uint64 `json:"refused"`
	Unclaimed  uint64 `json:"unclaimed"`
	UnderWay   uint64 `json:"under_way"`
	Difference int64  `json:"difference"`
}

// Issuer is what a client needs to sign in.
type Issuer struct {
	Issuer   string `json:"issuer"`
	ClientID string `json:"client_id"`
	Kind     string `json:"kind"`
	CAFile   string `json:"ca_file,omitempty"`
}

// Audit is the state of the audit log.
type Audit struct {
	Dir        string `json:"dir"`
	Durability string `json:"durability"`
	Seq        uint64 `json:"seq"`
	Sealed     uint64 `json:"sealed"` // entries of the sealed log
	Problem    string `json:"problem,omitempty"`
}

// Identity is who somebody is signed in as: whoami, bind and exec answer it.
type Identity struct {
	User    string    `json:"user"`
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Groups  []string  `json:"groups"`
	Kind    string    `json:"kind"`
	Actor   string    `json:"actor,omitempty"`
	Expires time.Time `json:"expires"`
	Session string    `json:"session"`
	Scope   string    `json:"scope"` // what it is bound to, in words
	Warning string    `json:"warning,omitempty"`
}

// Bind is the body of POST /v1/login and of POST /v1/exec: an ID token. For exec
// an empty token means the caller's own login.
type Bind struct {
	Token string `json:"token,omitempty"`
}

// Decide is the body of POST /v1/approvals/{id}/approve, deny, withdraw, break-glass
// and review.
type Decide struct {
	// Token is an ID token whose nonce is the request's; empty: the caller's own sign-in
	// decides.
	Token  string `json:"token,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Flows is the answer to GET /v1/flows.
type Flows struct {
	Flows []session.FlowInfo `json:"flows"`
}

// Trust is the answer to GET /v1/trust: public keys.
type Trust struct {
	CA     string `json:"ca"`      // PEM certificate
	LogKey string `json:"log_key"` // verifies the audit log's checkpoints
}
