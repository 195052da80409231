package evidence

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// algorithms are those that providers sign ID tokens with; none and those with
// shared keys prove nothing to others (RFC 8725 section 3.1).
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

// checkToken verifies an approver's ID token with the key set that the log has
// beside it: signed by the issuer, about the person that the event names, and
// minted for the request with that digest alone (its nonce).
func checkToken(ev *auditlog.Event) error {
	a, p := ev.Approval, ev.Principal
	if p == nil {
		return errors.New("the event names nobody")
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(a.Keys, &set); err != nil || len(set.Keys) == 0 {
		return errors.New("no key set of the issuer is recorded")
	}
	token, err := jose.ParseSignedCompact(a.Token, algorithms())
	if err != nil || len(token.Signatures) != 1 {
		return errors.New("the token is malformed")
	}
	var payload []byte
	for i := range set.Keys {
		k := &set.Keys[i]
		if kid := token.Signatures[0].Header.KeyID; kid != "" && k.KeyID != kid || !k.IsPublic() {
			continue
		}
		if payload, err = token.Verify(k); err == nil {
			break
		}
	}
	if payload == nil {
		return errors.New("none of the issuer's recorded keys verifies the token")
	}
	var c struct {
		Issuer  string `json:"iss"`
		Subject string `json:"sub"`
		Nonce   string `json:"nonce"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return errors.New("the token is malformed")
	}
	if c.Issuer != p.Issuer || c.Subject != p.Subject {
		return errors.New("the token is of somebody else than the event names")
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(a.Digest, "sha256:"))
	if err != nil || len(sum) != sha256.Size || c.Nonce != base64.RawURLEncoding.EncodeToString(sum) {
		return errors.New("the token was not minted for this request")
	}
	return nil
}

// approvals checks the digests of requests and the tokens of those who decided.
func (v *verifier) approvals() (string, error) {
	digests := map[string]string{}
	requests, tokens, without := 0, 0, 0
	one := func(raw []byte) error {
		switch auditlog.KindOf(raw) {
		case auditlog.ApprovalRequest, auditlog.ApprovalDecide:
		default:
			return nil
		}
		var ev auditlog.Event
		if err := json.Unmarshal(raw, &ev); err != nil || ev.Approval == nil {
			return err
		}
		a := ev.Approval
		if ev.Kind == auditlog.ApprovalRequest {
			if sum := sha256.Sum256([]byte(a.Document)); a.Digest != fmt.Sprintf("sha256:%x", sum) {
				return fmt.Errorf("event %d: the digest is not that of the document", ev.Seq)
			}
			requests++
			if len(digests) < maxGroups {
				digests[a.ID] = a.Digest
			}
			return nil
		}
		if a.Decided != "approved" && a.Decided != "denied" && a.Decided != "break_glass" {
			return nil
		}
		if d, ok := digests[a.ID]; ok && d != a.Digest {
			return fmt.Errorf("event %d: the decision is about another document than the request", ev.Seq)
		}
		if a.Token == "" {
			without++
			return nil
		}
		tokens++
		if err := checkToken(&ev); err != nil {
			return fmt.Errorf("event %d, request %s: %w", ev.Seq, a.ID, err)
		}
		return nil
	}
	err := eachLine(v.a.open, contextFile, func(line []byte) error {
		var c contextEvent
		if err := strict(line, &c); err != nil {
			return err
		}
		return one(c.Event)
	})
	if err == nil {
		err = eachLine(v.a.open, eventsFile, one)
	}
	if err != nil {
		return "", err
	}
	if requests+tokens+without == 0 {
		return "", uncheckedError("there are none in the period")
	}
	text := fmt.Sprintf("%d requests with the digest of their document; %d decisions with a token that the issuer signed for that very digest (its keys are those that the log recorded)", requests, tokens)
	if without > 0 {
		text += fmt.Sprintf("; %d decisions without a token: for them the record of a signed-in session is all there is", without)
	}
	return text, nil
}
