package identity

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weirproxy/weir/internal/flow"
)

// Bounds on what a verified token may say. Providers stay far below: Microsoft
// Entra ID, for one, lists at most 200 groups in a token.
const (
	maxNameBytes  = 512  // a user, subject, group, jti
	maxGroups     = 2048 // more is refused: dropping some could drop what a deny rule names
	maxActorDepth = 8    // RFC 8693, 4.1 sets no bound for nested "act"
)

// notBeforeLeeway is the clock skew that "nbf" may have; "exp" gets none.
const notBeforeLeeway = time.Minute

// latestExpiry is the end of the year 9999, the last that RFC 3339 can write.
const latestExpiry = 253402300799

// principal turns verified claims into a principal. It is pure: the same claims
// are judged again, under the configuration of the day, when a binding is read
// back after a restart.
func (i Issuer) principal(claims map[string]any, tokenID string, now time.Time) (*flow.Principal, error) {
	if iss, _ := claims["iss"].(string); iss != i.Issuer {
		return nil, fmt.Errorf("%w: it is from issuer %s, not %s", ErrToken, quote(iss), quote(i.Issuer))
	}
	if err := i.checkAudience(claims["aud"]); err != nil {
		return nil, err
	}
	expires, err := checkTimes(claims, now)
	if err != nil {
		return nil, err
	}
	subject, err := name(claims["sub"], "sub")
	if err != nil {
		return nil, err
	}
	user, err := userOf(claims, i.UserClaim)
	if err != nil {
		return nil, err
	}
	groups, err := groupsOf(claims, i.GroupsClaim)
	if err != nil {
		return nil, err
	}
	actor, err := actorOf(claims["act"], 1)
	if err != nil {
		return nil, err
	}
	return &flow.Principal{
		Issuer: i.Issuer, Subject: subject, User: user, Groups: groups, Kind: i.Kind,
		TokenID: tokenID, Actor: actor, Claims: claims, Expires: expires,
	}, nil
}

func (i Issuer) checkAudience(aud any) error {
	list, err := stringList(aud)
	if err != nil || len(list) == 0 {
		return fmt.Errorf("%w: it names no audience: request one for %s", ErrToken, quote(i.Audiences[0]))
	}
	for _, a := range list {
		if slices.Contains(i.Audiences, a) {
			return nil
		}
	}
	return fmt.Errorf("%w: it is meant for audience %s, not for Weir: request one for %s", ErrToken, quote(strings.Join(list, ", ")), quote(i.Audiences[0]))
}

// checkTimes checks exp (required here) and nbf (RFC 7519, 4.1.4 and 4.1.5).
func checkTimes(claims map[string]any, now time.Time) (time.Time, error) {
	expires, err := numericDate(claims["exp"], "exp")
	if err != nil {
		return expires, err
	}
	if !now.Before(expires) {
		return expires, fmt.Errorf("%w: it expired at %s: get a new one", ErrToken, expires.Format(time.RFC3339))
	}
	if claims["nbf"] == nil {
		return expires, nil
	}
	notBefore, err := numericDate(claims["nbf"], "nbf")
	if err != nil {
		return expires, err
	}
	if now.Add(notBeforeLeeway).Before(notBefore) {
		return expires, fmt.Errorf("%w: it is valid only from %s on: wait, or check this machine's clock", ErrToken, notBefore.Format(time.RFC3339))
	}
	return expires, nil
}

// numericDate reads seconds since 1970 (RFC 7519, 2), fractions cut off.
func numericDate(v any, claim string) (time.Time, error) {
	f, ok := v.(float64)
	if !ok || math.IsNaN(f) || f <= 0 || f > latestExpiry {
		return time.Time{}, fmt.Errorf("%w: its claim %s is missing or no time", ErrToken, claim)
	}
	return time.Unix(int64(f), 0).UTC(), nil
}

// userOf finds the user's name. An e-mail address counts only while the provider
// does not say that it is unverified: anybody can claim somebody's address.
func userOf(claims map[string]any, claim string) (string, error) {
	verified := emailCounts(claims)
	if claim == "" {
		if claims["email"] != nil && claims["email"] != "" && verified {
			return name(claims["email"], "email")
		}
		return name(claims["sub"], "sub")
	}
	if claim == "email" && !verified {
		return "", fmt.Errorf("%w: the provider says that its e-mail address is not verified: verify it there and sign in again", ErrToken)
	}
	v, _ := lookup(claims, claim)
	return name(v, claim)
}

func emailCounts(claims map[string]any) bool {
	switch v := claims["email_verified"].(type) {
	case nil:
		_, present := claims["email_verified"]
		return !present
	case bool:
		return v
	case string: // some providers send it so
		return v == "true"
	}
	return false
}

// name accepts a non-empty printable string of bounded length.
func name(v any, claim string) (string, error) {
	s, ok := v.(string)
	if !ok || s == "" {
		return "", fmt.Errorf("%w: it has no claim %s: ask for the scope that adds it, or configure user_claim", ErrToken, quote(claim))
	}
	if len(s) > maxNameBytes || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", fmt.Errorf("%w: its claim %s is too long or not printable", ErrToken, quote(claim))
	}
	return s, nil
}

func groupsOf(claims map[string]any, claim string) ([]string, error) {
	v, ok := lookup(claims, claim)
	if !ok {
		// OpenID Connect Core 5.6.2: claims by reference. Taking that for "no
		// groups" would skip rules that deny a group.
		if refs, _ := claims["_claim_names"].(map[string]any); refs[claim] != nil {
			return nil, fmt.Errorf("%w: the provider left the groups out of it (too many): let it send only the groups assigned to this client", ErrToken)
		}
		return nil, nil
	}
	list, err := stringList(v)
	if err != nil || len(list) > maxGroups {
		return nil, fmt.Errorf("%w: its claim %s is not a list of at most %d groups", ErrToken, quote(claim), maxGroups)
	}
	groups := make([]string, 0, len(list))
	for _, g := range list {
		if g == "" || slices.Contains(groups, g) {
			continue
		}
		if _, err := name(g, claim); err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// actorOf reads "act" (RFC 8693, 4.1): who acts, and for whom that one acts.
func actorOf(v any, depth int) (*flow.Actor, error) {
	if v == nil {
		return nil, nil
	}
	claims, ok := v.(map[string]any)
	if !ok || depth > maxActorDepth {
		return nil, fmt.Errorf("%w: its claim act is no object, or nested deeper than %d", ErrToken, maxActorDepth)
	}
	id := claims["sub"]
	if id == nil {
		id = claims["client_id"]
	}
	subject, err := name(id, "act.sub")
	if err != nil {
		return nil, err
	}
	user := subject
	if claims["email"] != nil && emailCounts(claims) {
		if user, err = name(claims["email"], "act.email"); err != nil {
			return nil, err
		}
	}
	issuer := ""
	if claims["iss"] != nil {
		if issuer, err = name(claims["iss"], "act.iss"); err != nil {
			return nil, err
		}
	}
	next, err := actorOf(claims["act"], depth+1)
	if err != nil {
		return nil, err
	}
	return &flow.Actor{Issuer: issuer, Subject: subject, User: user, Actor: next}, nil
}

// lookup finds a claim by its name, or by a path of names inside objects
// ("realm_access.roles").
func lookup(claims map[string]any, claim string) (any, bool) {
	if v, ok := claims[claim]; ok {
		return v, true
	}
	head, rest, found := strings.Cut(claim, ".")
	if !found {
		return nil, false
	}
	inner, ok := claims[head].(map[string]any)
	if !ok {
		return nil, false
	}
	return lookup(inner, rest)
}

// stringList reads one string or a list of strings.
func stringList(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		list := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%w: a list holds something that is no string", ErrToken)
			}
			list = append(list, s)
		}
		return list, nil
	}
	return nil, fmt.Errorf("%w: neither a string nor a list", ErrToken)
}
