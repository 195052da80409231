package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// The form of a symmetric secret: Standard Webhooks 1.0.0, "Signature scheme".
const (
	secretPrefix = "whsec_"
	minSecret    = 24   // bytes, of the specification
	maxSecret    = 1024 // bytes; the specification says 64, and more does no harm
)

// secretOf is the key behind a configured secret: "whsec_" and base64, or the bytes
// themselves.
func secretOf(configured []byte) ([]byte, error) {
	key := configured
	if encoded, ok := strings.CutPrefix(string(configured), secretPrefix); ok {
		b, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, errors.New("what follows whsec_ in the webhook's secret is no base64; copy it anew from the receiver")
		}
		key = b
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return nil, fmt.Errorf("the webhook's secret is not of %d to %d bytes (Standard Webhooks); make one with: echo whsec_$(openssl rand -base64 32)",
			minSecret, maxSecret)
	}
	return append([]byte(nil), key...), nil
}

// sign is the value of webhook-signature. The id holds no full stop, so that the three
// parts cannot be split in another way.
func sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
