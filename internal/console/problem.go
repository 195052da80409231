package console

import (
	"encoding/json"
	"mime"
	"net/http"
	"strings"
)

// problem is an error for programs (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func refuse(w http.ResponseWriter, code int, detail string) {
	if !strings.HasPrefix(detail, "weir: ") {
		detail = "weir: " + detail
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(problem{Type: "about:blank", Title: http.StatusText(code), Status: code, Detail: detail})
}

// unauthorized asks for a bearer token (RFC 6750, 3).
func unauthorized(w http.ResponseWriter, parameters, detail string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`+parameters)
	refuse(w, http.StatusUnauthorized, detail)
}

// mediaType is that of a request's body, in lower case; "" when it gives none.
func mediaType(r *http.Request) string {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return kind
}
