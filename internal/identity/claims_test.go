package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUserOf(t *testing.T) {
	cases := []struct {
		name, claim, claims, want string // want "": refused
	}{
		{"email first", "", `{"sub":"s","email":"a@x"}`, "a@x"},
		{"verified", "", `{"sub":"s","email":"a@x","email_verified":true}`, "a@x"},
		{"verified, as text", "", `{"sub":"s","email":"a@x","email_verified":"true"}`, "a@x"},
		{"not verified", "", `{"sub":"s","email":"a@x","email_verified":false}`, "s"},
		{"not verified, as text", "", `{"sub":"s","email":"a@x","email_verified":"false"}`, "s"},
		{"verified is null", "", `{"sub":"s","email":"a@x","email_verified":null}`, "s"},
		{"verified is odd", "", `{"sub":"s","email":"a@x","email_verified":[]}`, "s"},
		{"no email", "", `{"sub":"s"}`, "s"},
		{"empty email", "", `{"sub":"s","email":""}`, "s"},
		{"email of a wrong type", "", `{"sub":"s","email":["a@x"]}`, ""},
		{"email wanted", "email", `{"sub":"s"}`, ""},
		{"email wanted, not verified", "email", `{"sub":"s","email":"a@x","email_verified":false}`, ""},
		{"another claim", "upn", `{"sub":"s","email":"a@x","upn":"ann"}`, "ann"},
		{"another claim, missing", "upn", `{"sub":"s"}`, ""},
		{"inside an object", "person.name", `{"sub":"s","person":{"name":"Ann B."}}`, "Ann B."},
		{"a name with a dot", "x.y/name", `{"sub":"s","x.y/name":"ann"}`, "ann"},
		{"escape sequence", "", `{"sub":"\u001b[31m"}`, ""},
		{"too long", "", `{"sub":"` + strings.Repeat("a", maxNameBytes+1) + `"}`, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var claims map[string]any
			if err := json.Unmarshal([]byte(c.claims), &claims); err != nil {
				t.Fatal(err)
			}
			got, err := userOf(claims, c.claim)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestGroupsOf(t *testing.T) {
	cases := []struct {
		name, claims string
		want         []string
		ok           bool
	}{
		{"list", `{"groups":["a","b"]}`, []string{"a", "b"}, true},
		{"single", `{"groups":"a"}`, []string{"a"}, true},
		{"none", `{}`, nil, true},
		{"null", `{"groups":null}`, []string{}, true},
		{"twice and empty", `{"groups":["a","","a"]}`, []string{"a"}, true},
		{"an object", `{"groups":{"a":1}}`, nil, false},
		{"mixed", `{"groups":["a",1]}`, nil, false},
		{"a newline", `{"groups":["a\nb"]}`, nil, false},
		{"too many", `{"groups":["` + strings.Repeat(`x","`, maxGroups) + `y"]}`, nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var claims map[string]any
			if err := json.Unmarshal([]byte(c.claims), &claims); err != nil {
				t.Fatal(err)
			}
			got, err := groupsOf(claims, "groups")
			if (err == nil) != c.ok || !cmp.Equal(got, c.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// Whatever claims say, either a complete principal comes out or a typed error.
func FuzzPrincipal(f *testing.F) {
	f.Add(`{"iss":"https://i","aud":"weir","sub":"s","exp":4102444800,"email":"a@x","groups":["g"],"act":{"sub":"b","act":{"sub":"c"}}}`)
	f.Add(`{"iss":"https://i","aud":["weir"],"sub":"s","exp":1e99,"nbf":-1}`)
	f.Add(`{"_claim_names":{"groups":"x"},"act":[],"groups":{"a":{}}}`)
	issuer, err := Issuer{Issuer: "https://i", ClientID: "weir"}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1800000000, 0)
	f.Fuzz(func(t *testing.T, text string) {
		var claims map[string]any
		if json.Unmarshal([]byte(text), &claims) != nil {
			t.Skip()
		}
		p, err := issuer.principal(claims, "id", now)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if p.Subject == "" || p.User == "" || !p.Expires.After(now) || strings.ContainsAny(p.User+p.Subject, "\n\x00\x1b") {
			t.Errorf("incomplete: %+v", p)
		}
	})
}
