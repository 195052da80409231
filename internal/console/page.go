package console

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/weirproxy/weir/internal/approval"
)

//go:embed templates
var files embed.FS

// Rows of the list.
const (
	maxEnded   = 200
	maxExcerpt = 160 // characters of a statement
)

// refreshSeconds is how often the list renews itself.
const refreshSeconds = 15

// pages are the templates and the style sheet.
type pages struct {
	templates map[string]*template.Template
	style     []byte
	icon      []byte
	stylePath string // with its digest: a new version is a new address
}

func parsePages() (*pages, error) {
	p := &pages{templates: map[string]*template.Template{}}
	var err error
	if p.style, err = files.ReadFile("templates/style.css"); err != nil {
		return nil, err
	}
	if p.icon, err = files.ReadFile("templates/icon.svg"); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(p.style)
	p.stylePath = "/static/" + base64.RawURLEncoding.EncodeToString(sum[:9]) + ".css"
	funcs := template.FuncMap{
		"line": line, "code": code, "clock": clock, "proof": proofWords, "join": strings.Join,
		"short":    func(s string) string { return short(s, maxExcerpt) },
		"sentence": sentence,
		"add":      func(a, b int) int { return a + b },
	}
	for _, name := range []string{"list", "show", "result", "signin", "continue", "message"} {
		t, err := template.New("layout.html").Funcs(funcs).ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		p.templates[name] = t
	}
	return p, nil
}

func (p *pages) serveFiles(mux *http.ServeMux) {
	serve := func(path, kind string, data []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "public, max-age=86400")
			_, _ = w.Write(data)
		})
	}
	serve(p.stylePath, "text/css; charset=utf-8", p.style)
	serve("/static/icon.svg", "image/svg+xml", p.icon)
}

// layout is what every page has.
type layout struct {
	Title string
	Style string
	User  string // "": nobody is signed in
	Form  string // of the session
	Body  any
}

func (c *Console) page(w http.ResponseWriter, r *http.Request, code int, name, title string, body any) {
	l := layout{Title: title, Style: c.pages.stylePath, Body: body}
	if x := c.session(r); x != nil {
		l.User, l.Form = x.who.User, x.form
	}
	var b bytes.Buffer
	if err := c.pages.templates[name].Execute(&b, l); err != nil {
		c.cfg.Log.Error("a page of the console cannot be made", "page", name, "error", err)
		http.Error(w, "weir: this page cannot be made; tell whoever runs weir, who finds why in its log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, &b)
	}
}

// message is a page that says one thing.
type message struct {
	Title, Text string
	Back        string // address of the page to go on to
	BackText    string
}

func (c *Console) fail(w http.ResponseWriter, r *http.Request, code int, title, text string) {
	m := message{Title: title, Text: text, Back: "/approvals", BackText: "All approvals"}
	switch {
	case code == http.StatusMisdirectedRequest:
		m.Back, m.BackText = c.cfg.URL, c.cfg.URL
	case c.session(r) == nil:
		m.Back, m.BackText = "/signin", "Sign in"
	}
	c.page(w, r, code, "message", title, m)
}

// failed answers with an error of the service.
func (c *Console) failed(w http.ResponseWriter, r *http.Request, err error) {
	code, text := c.explain(err)
	title := "This cannot be shown"
	if code == http.StatusNotFound {
		title, text = "There is no such request", "Or none that you may see. It may be known to another node, or you may be signed in as somebody else than you think."
	}
	c.fail(w, r, code, title, sentence(text))
}

// explain gives an error of the service its HTTP status; its text is for the user.
func (c *Console) explain(err error) (code int, text string) {
	var (
		notFound   *approval.NotFound
		notAllowed *approval.NotAllowed
		conflict   *approval.Conflict
		away       Unavailable
	)
	switch {
	case errors.As(err, &notFound):
		return http.StatusNotFound, err.Error()
	case errors.As(err, &notAllowed):
		return http.StatusForbidden, err.Error()
	case errors.As(err, &conflict):
		return http.StatusConflict, err.Error()
	case errors.As(err, &away), errors.Is(err, errNotReady):
		return http.StatusServiceUnavailable, err.Error()
	}
	c.cfg.Log.Error("an approval could not be handled", "error", err)
	return http.StatusInternalServerError, "weir: this could not be done, for a reason that whoever runs weir on this node finds in its log"
}

var errNotReady = errors.New("weir: this agent holds no requests for approval yet; try again when `weir status` says ready")

func (c *Console) service() (approval.Service, error) {
	if s := c.cfg.Approvals(); s != nil {
		return s, nil
	}
	return nil, errNotReady
}

// listPage is all that there is for somebody.
type listPage struct {
	Decide, Review, Own, Other, Ended []*request
	All                               bool
	Paused                            bool
	Hidden                            int // ended ones that are not shown
	Seconds                           int
	Now                               string
}

// Count is how many are open.
func (l listPage) Count() int { return len(l.Decide) + len(l.Review) + len(l.Own) + len(l.Other) }

func (c *Console) list(w http.ResponseWriter, r *http.Request) {
	x := c.session(r)
	if x == nil {
		c.signInFirst(w, r, "/approvals")
		return
	}
	s, err := c.service()
	if err != nil {
		c.failed(w, r, err)
		return
	}
	q := r.URL.Query()
	p := listPage{All: q.Get("all") == "1", Paused: q.Has("paused"), Seconds: refreshSeconds, Now: clock(c.cfg.Now())}
	all, err := s.List(r.Context(), x.viewer(), p.All)
	if err != nil {
		c.failed(w, r, err)
		return
	}
	for i := range all {
		v := newRequest(&all[i], x.who, c.cfg.Now())
		switch {
		case v.Can("approve"):
			p.Decide = append(p.Decide, v)
		case v.Can("review"):
			p.Review = append(p.Review, v)
		case !v.Open():
			p.Ended = append(p.Ended, v)
		case v.Own:
			p.Own = append(p.Own, v)
		default:
			p.Other = append(p.Other, v)
		}
	}
	slices.SortStableFunc(p.Decide, func(a, b *request) int { return cmp.Compare(a.Expires.UnixNano(), b.Expires.UnixNano()) })
	slices.Reverse(p.Ended) // the latest first
	if n := len(p.Ended); n > maxEnded {
		p.Ended, p.Hidden = p.Ended[:maxEnded], n-maxEnded
	}
	if !p.Paused && !p.All {
		w.Header().Set("Refresh", fmt.Sprintf("%d; url=/approvals?auto=1", refreshSeconds))
	}
	title := "Approvals"
	if n := len(p.Decide) + len(p.Review); n > 0 {
		title = fmt.Sprintf("(%d) Approvals", n)
	}
	c.page(w, r, http.StatusOK, "list", title, p)
}

// showPage is one request.
type showPage struct {
	*request
	Form      string
	MaxReason int
}

func (c *Console) show(w http.ResponseWriter, r *http.Request) {
	x := c.session(r)
	if x == nil {
		c.signInFirst(w, r, r.URL.Path)
		return
	}
	s, err := c.service()
	if err != nil {
		c.failed(w, r, err)
		return
	}
	a, err := s.Show(r.Context(), x.viewer(), r.PathValue("id"))
	if err != nil {
		c.failed(w, r, err)
		return
	}
	v := newRequest(a, x.who, c.cfg.Now())
	c.page(w, r, http.StatusOK, "show", v.Title, showPage{v, x.form, maxReason})
}
