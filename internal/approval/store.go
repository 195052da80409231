package approval

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weirproxy/weir/internal/kv"
)

// Store keeps requests; *kv.Bucket is one.
type Store interface {
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Get(ctx context.Context, key string) (kv.Entry, error)
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	List(ctx context.Context) ([]kv.Entry, error)
}

// requestKeys begins the keys of requests in the store; clockKey holds the latest time.
const (
	requestKeys = "request."
	clockKey    = "clock"
)

// record is a request as the store holds it.
type record struct {
	Document  []byte           `json:"document"`
	Flow      string           `json:"flow"`
	Key       []byte           `json:"key"` // the scope's
	Grant     string           `json:"grant"`
	GrantFor  time.Duration    `json:"grant_for,omitempty"`
	Status    Status           `json:"status"`
	Decisions []storedDecision `json:"decisions,omitempty"`
	Preview   []Preview        `json:"preview,omitempty"`
	Until     time.Time        `json:"until,omitzero"` // of a grant that goes on
	Ended     string           `json:"ended,omitempty"`
	EndedAt   time.Time        `json:"ended_at,omitzero"`
	Review    string           `json:"review,omitempty"`
	BrokeBy   string           `json:"broke_by,omitempty"` // the requester, who broke the glass
	Why       string           `json:"why,omitempty"`      // in their words
}

// storedDecision is a decision with what proves it.
type storedDecision struct {
	Decision
	Token string          `json:"token,omitempty"`
	Keys  json.RawMessage `json:"keys,omitempty"`
}

// sealed is a record in the store: whoever does not have the node's key cannot make one.
type sealed struct {
	Body []byte `json:"body"`
	Seal []byte `json:"seal"`
}

// errSeal: something in the store was not written by this node.
var errSeal = errors.New("what the store holds was not written by this node's weir")

// sealer seals records with the node's own key.
type sealer struct{ key []byte }

func (s sealer) mac(name string, body []byte) []byte {
	m := hmac.New(sha256.New, s.key)
	fmt.Fprintf(m, "weir approval record\x00%d\x00%s", len(name), name)
	m.Write(body)
	return m.Sum(nil)
}

func (s sealer) seal(name string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode a request for the store: %w", err)
	}
	return json.Marshal(sealed{Body: body, Seal: s.mac(name, body)})
}

func (s sealer) open(name string, value []byte, into any) error {
	var x sealed
	if json.Unmarshal(value, &x) != nil || !hmac.Equal(x.Seal, s.mac(name, x.Body)) {
		return errSeal
	}
	return json.Unmarshal(x.Body, into)
}
