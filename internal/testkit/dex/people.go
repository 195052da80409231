package dex

import (
	"html/template"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// personParam names the chosen person, by place in Config.People.
const personParam = "person"

// openFront puts a page before Dex on which a person with a browser says who
// they are: the connector itself has no page, it believes request headers.
func (p *Provider) openFront(listen, backend string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	target := &url.URL{Scheme: "http", Host: backend}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
		http.Error(w, "the identity provider does not answer yet", http.StatusBadGateway)
	}}
	front := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/callback/"+connectorID) || r.Header.Get(headerUser) != "" {
			proxy.ServeHTTP(w, r)
			return
		}
		q := r.URL.Query()
		n, err := strconv.Atoi(q.Get(personParam))
		if err != nil || n < 0 || n >= len(p.cfg.People) {
			p.ask(w, q)
			return
		}
		who := p.cfg.People[n]
		r.Header.Set(headerUser, who.User)
		r.Header.Set(headerEmail, who.Email)
		r.Header.Set(headerGroups, strings.Join(who.Groups, ","))
		proxy.ServeHTTP(w, r)
	})
	p.front, p.served = &http.Server{Handler: front, ReadHeaderTimeout: 10 * time.Second}, make(chan struct{})
	go func() {
		defer close(p.served)
		_ = p.front.Serve(listener) // ends with Stop
	}()
	return nil
}

var peoplePage = template.Must(template.New("people").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in</title><meta name="viewport" content="width=device-width">
<style>body{font:1.1rem/1.6 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}small{color:#555}</style>
</head><body><h1>Who are you?</h1><p>This identity provider belongs to a demonstration and believes you.</p>
<ul>{{range .}}<li><a href="{{.Link}}">{{.User}}</a> <small>{{.Email}}; groups: {{.Groups}}</small></li>{{end}}</ul></body></html>
`))

func (p *Provider) ask(w http.ResponseWriter, q url.Values) {
	type row struct{ Link, User, Email, Groups string }
	var rows []row
	for i, who := range p.cfg.People {
		q.Set(personParam, strconv.Itoa(i))
		rows = append(rows, row{"?" + q.Encode(), who.User, who.Email, strings.Join(who.Groups, ", ")})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = peoplePage.Execute(w, rows) // the browser may have gone
}
