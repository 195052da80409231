package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/internal/flow"
	"github.com/weirproxy/weir/internal/strictyaml"
)

// validator adds a problem for everything that is wrong and never stops early.
type validator struct {
	c   *Config
	doc *strictyaml.Document
}

var (
	protocols   = []string{"http", "kubernetes", "mysql", "postgres", "ssh", "tcp"}
	kinds       = []string{"agent", "ci", "human", "workload"}
	tlsModes    = []string{TLSDisable, TLSPrefer, TLSRequire, TLSVerifyFull}
	modes       = []string{string(Enforce), string(Observe)}
	durability  = []string{string(DurabilityDisk), string(DurabilityProcess)}
	backendName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110, 5.6.2
)

// maxSocketPath is sizeof(sun_path) without the final NUL, unix(7).
const maxSocketPath = 107

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func (v *validator) oneOf(path, word string, choices []string) {
	if word != "" && !slices.Contains(choices, word) {
		v.doc.Add(path, fmt.Sprintf("%s: %q is not known", path, word), strictyaml.Suggest(word, choices))
	}
}

// absolute wants an absolute, clean path; "" is left to the caller.
func (v *validator) absolute(path, value string) {
	if value != "" && !filepath.IsAbs(value) {
		v.doc.Add(path, path+" is no absolute path", "write it from / on")
	}
}

func (v *validator) validate() {
	c := v.c
	if c.Node == "" || len(c.Node) > 253 || strings.ContainsFunc(c.Node, func(r rune) bool { return r <= ' ' || r == 0x7f || !strconv.IsPrint(r) }) {
		v.doc.Add("node", "node is empty, longer than 253 bytes or holds spaces", "name this machine in one word")
	}
	v.absolute("state_dir", c.StateDir)
	v.absolute("run_dir", c.RunDir)
	if len(c.RunDir)+len("/agent.sock") > maxSocketPath {
		v.doc.Add("run_dir", "run_dir is too long for a unix socket in it", "use a path of at most "+strconv.Itoa(maxSocketPath-len("/agent.sock"))+" bytes")
	}
	v.intercept()
	for i := range c.Identity.Issuers {
		v.issuer(index("identity.issuers", i), &c.Identity.Issuers[i])
	}
	v.backends()
	for i, f := range c.PolicyFiles {
		v.absolute(index("policy_files", i), f)
		if slices.Index(c.PolicyFiles, f) < i {
			v.doc.Add(index("policy_files", i), "this policy file stands here twice", "keep one of them")
		}
	}
	if len(c.PolicyFiles) == 0 {
		v.doc.Add("policy_files", "there are no policy files", "name at least one: without a policy everything is denied")
	}
	v.approvals()
	v.audit()
	v.anchors()
	v.hub()
	v.secrets()
}

func (v *validator) intercept() {
	i := &v.c.Intercept
	v.oneOf("intercept.mode", string(i.Mode), modes)
	for n, dir := range i.Cgroups {
		path := index("intercept.cgroups", n)
		v.absolute(path, dir)
		if dir == "" || slices.Index(i.Cgroups, dir) < n {
			v.doc.Add(path, "this cgroup is empty or stands here twice", "take it out")
		}
	}
	v.absolute("intercept.bpffs", i.BPFFS)
	if i.ProxyPort == 0 {
		v.doc.Add("intercept.proxy_port", "intercept.proxy_port is no port", "write a number from 1 to 65535")
	}
}

func (v *validator) issuer(path string, is *Issuer) {
	if is.Issuer == "" {
		v.doc.Add(path, path+" has no issuer", "add issuer: with the provider's URL, exactly as its tokens write it")
	} else {
		v.issuerURL(path+".issuer", is.Issuer)
	}
	for i := range v.c.Identity.Issuers {
		other := &v.c.Identity.Issuers[i]
		if other == is {
			break
		}
		if other.Issuer == is.Issuer && is.Issuer != "" {
			v.doc.Add(path+".issuer", "there is an entry for this issuer already", "put its audiences into one entry")
		}
	}
	if is.ClientID == "" && len(is.Audiences) == 0 {
		v.doc.Add(path, path+" has neither client_id nor audiences", "add client_id: the client that people sign in with")
	}
	v.clientSecret(path+".client_secret", is)
	for i, a := range is.Audiences {
		if a == "" {
			v.doc.Add(index(path+".audiences", i), "this audience is empty", "take it out")
		}
	}
	if is.Audiences != nil && len(is.Audiences) == 0 {
		v.doc.Add(path+".audiences", "audiences is empty, so no token would count", "name at least one, or leave it out for client_id")
	}
	v.oneOf(path+".kind", string(is.Kind), kinds)
	v.absolute(path+".ca_file", is.CAFile)
}

// clientSecret belongs to the sign-in at the console, where only people sign in.
func (v *validator) clientSecret(path string, is *Issuer) {
	switch {
	case is.ClientSecret == "": // secret below complains when it was written like that
	case is.Kind != flow.Human && slices.Contains(kinds, string(is.Kind)):
		v.doc.Add(path, path+": only people sign in at the console", "take it out, or set kind: human")
	case is.ClientID == "":
		v.doc.Add(path, path+" belongs to no client", "add client_id")
	}
	v.secret(path, is.ClientSecret)
}

// issuerURL: OpenID Connect Discovery 1.0 wants https without query or
// fragment; http is taken on loopback, where nobody listens in.
func (v *validator) issuerURL(path, text string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.doc.Add(path, path+" is no issuer URL", "write https://HOST/PATH, without user, query or fragment")
	case u.Scheme == "https":
	case u.Scheme == "http" && isLoopback(u.Hostname()):
	default:
		v.doc.Add(path, path+" is not https", "use https; http is taken on a loopback address only")
	}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (v *validator) backends() {
	names := make(map[string]string)
	addresses := make(map[Address]string)
	for i := range v.c.Backends {
		b, path := &v.c.Backends[i], index("backends", i)
		switch {
		case b.Name == "":
			v.doc.Add(path, path+" has no name", "add name:")
		case !backendName.MatchString(b.Name):
			v.doc.Add(path+".name", path+".name has characters that a name cannot have", "use letters, digits, dots, dashes and underscores, at most 63")
		case names[b.Name] != "":
			v.doc.Add(path+".name", fmt.Sprintf("there is a backend %q already, on line %d", b.Name, v.doc.Line(names[b.Name])), "rename one of them")
		default:
			names[b.Name] = path
		}
		if b.Protocol == "" {
			v.doc.Add(path, path+" has no protocol", "add protocol: "+strings.Join(protocols, ", "))
		}
		v.oneOf(path+".protocol", string(b.Protocol), protocols)
		v.addresses(path, b, addresses)
		if b.Dial != "" && !isHostPort(b.Dial) {
			v.doc.Add(path+".dial", path+".dial is no host:port", "write host:port or [v6]:port")
		}
		v.tls(path+".tls", &b.TLS)
		for j := range b.Credentials {
			v.credential(index(path+".credentials", j), b, &b.Credentials[j], j)
		}
	}
}

// addresses refuses the same destination twice: prefixes of different lengths
// may lie in each other, and the longest one counts; equal ones cannot be told
// apart.
func (v *validator) addresses(path string, b *Backend, seen map[Address]string) {
	if len(b.Addresses) == 0 {
		v.doc.Add(path, path+" has no addresses", "add addresses: with what its clients connect to")
	}
	for i, a := range b.Addresses {
		at := index(path+".addresses", i)
		if a.Port == 0 || !a.Prefix.IsValid() && a.Host == "" {
			continue // reported when it was read
		}
		if first, ok := seen[a]; ok {
			v.doc.Add(at, fmt.Sprintf("%s is protected already, on line %d", a, v.doc.Line(first)), "a destination belongs to one backend; take one of them out")
		} else {
			seen[a] = at
		}
		if a.Port == v.c.Intercept.ProxyPort && (a.Host == "localhost" || a.Prefix.IsValid() && a.Prefix.Addr().IsLoopback()) {
			v.doc.Add(at, fmt.Sprintf("%s is weir's own proxy port", a), "change intercept.proxy_port")
		}
	}
}

func (v *validator) tls(path string, t *TLS) {
	v.oneOf(path+".mode", t.Mode, tlsModes)
	v.absolute(path+".ca_file", t.CAFile)
	if t.Mode == TLSDisable && (t.CAFile != "" || t.ServerName != "") {
		v.doc.Add(path, path+": with mode disable nothing is verified", "take ca_file and server_name out, or use verify-full")
	}
}

// fields of a credentials entry that a protocol can use.
var credentialFields = map[flow.Protocol][]string{
	flow.Postgres:   {"username", "password"},
	flow.MySQL:      {"username", "password"},
	flow.SSH:        {"username", "password", "private_key"},
	flow.HTTP:       {"username", "password", "bearer_token", "headers"},
	flow.Kubernetes: {"bearer_token", "headers"},
	flow.TCP:        {},
}

func (v *validator) credential(path string, b *Backend, c *Credential, i int) {
	given := map[string]string{"username": c.Username, "password": c.Password, "private_key": c.PrivateKey, "bearer_token": c.BearerToken}
	usable, known := credentialFields[b.Protocol]
	for _, name := range []string{"username", "password", "private_key", "bearer_token", "headers"} {
		if known && v.doc.Has(path+"."+name) && !slices.Contains(usable, name) {
			v.doc.Add(path+"."+name, fmt.Sprintf("%s.%s: %s has no use for it", path, name, b.Protocol), "take it out")
		}
		if name != "username" && name != "headers" {
			v.secret(path+"."+name, given[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if !headerName.MatchString(name) {
			v.doc.Add(path+".headers", path+".headers has a name that is no header name", "see RFC 9110, 5.1")
		}
		v.secret(path+".headers."+name, c.Headers[name])
	}
	if slices.Contains(usable, "username") && b.Protocol != flow.HTTP && c.Username == "" {
		v.doc.Add(path, path+" has no username", "add username: the account at the backend")
	}
	if c.Groups != nil && len(c.Groups) == 0 {
		v.doc.Add(path+".groups", path+".groups is empty", "name at least one, or leave it out for everybody")
	}
	if len(c.Groups) == 0 && i < len(b.Credentials)-1 {
		v.doc.Add(path, path+" is for everybody, so the entries after it are never used", "move it to the end")
	}
}

// secret checks a reference and never repeats it.
func (v *validator) secret(path, ref string) {
	if ref == "" {
		if v.doc.Has(path) {
			v.doc.Add(path, path+" is empty", "write a reference, or take the key out")
		}
		return
	}
	scheme, rest, _ := strings.Cut(ref, ":")
	ok, fix := false, ""
	switch scheme {
	case "file", "age":
		ok, fix = filepath.IsAbs(rest), "write "+scheme+":/absolute/path"
	case "env":
		ok, fix = envName.MatchString(rest), "write env:NAME"
	case "exec":
		ok, fix = strings.TrimSpace(rest) != "", "write exec:/path/to/command and its arguments"
	case "bao":
		p, field, has := strings.Cut(rest, "#")
		ok, fix = has && p != "" && field != "", "write bao:PATH#FIELD"
	default:
		fix = "put the secret into a file and write file:/path, or use env:, exec:, age: or bao:"
	}
	if !ok {
		v.doc.Add(path, path+" is no secret reference", fix)
	}
}

func (v *validator) approvals() {
	a := &v.c.Approvals
	if a.Timeout <= 0 {
		v.doc.Add("approvals.timeout", "approvals.timeout must be longer than nothing", "write 15m, for example")
	}
	for i := range a.Notify {
		n, path := &a.Notify[i], index("approvals.notify", i)
		switch {
		case (n.Webhook == "") == (n.Slack == nil):
			v.doc.Add(path, path+" is either a webhook or slack", "write one entry for each")
		case n.Slack != nil:
			v.slack(path, n)
		default:
			v.httpURL(path+".webhook", n.Webhook)
			if n.Secret == "" {
				v.doc.Add(path, path+" has no secret", "add secret: with a reference, so that the receiver can check the signature")
			}
			v.secret(path+".secret", n.Secret)
		}
	}
}

func (v *validator) slack(path string, n *Notifier) {
	if n.Secret != "" {
		v.doc.Add(path+".secret", path+".secret: slack has no use for it", "take it out")
	}
	if n.Details {
		v.doc.Add(path+".details", path+".details: slack has no use for it", "take it out: messages in Slack show the beginning of a statement anyway")
	}
	s := n.Slack
	for _, f := range [][2]string{{"app_token", s.AppToken}, {"bot_token", s.BotToken}, {"channel", s.Channel}} {
		if f[1] == "" {
			v.doc.Add(path+".slack", path+".slack has no "+f[0], "add it")
		}
	}
	v.secret(path+".slack.app_token", s.AppToken)
	v.secret(path+".slack.bot_token", s.BotToken)
	if s.APIURL == "" {
		return
	}
	v.httpURL(path+".slack.api_url", s.APIURL)
	if strings.Contains(s.APIURL, "?") {
		v.doc.Add(path+".slack.api_url", path+".slack.api_url has a query, and the names of methods are put behind it", "take the query out")
	}
}

// httpURL never repeats the URL: a webhook's path is often its secret.
func (v *validator) httpURL(path, text string) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.Fragment != "" {
		v.doc.Add(path, path+" is no URL", "write https://HOST/PATH, without user and fragment")
		return
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) && (strings.HasSuffix(path, ".webhook") || strings.HasSuffix(path, ".api_url")) {
		v.doc.Add(path, path+" is not https", "use https; http is taken on a loopback address only")
	}
}

func (v *validator) audit() {
	a := &v.c.Audit
	v.oneOf("audit.durability", string(a.Durability), durability)
	if a.Retention <= 0 {
		v.doc.Add("audit.retention", "audit.retention must be longer than nothing", "write 400d, for example")
	}
	for i, r := range a.SealTo {
		if !isRecipient(r) {
			v.doc.Add(index("audit.seal_to", i), index("audit.seal_to", i)+" is no age recipient", "write the public key that age-keygen prints (age1...)")
		}
	}
	if a.OTLP.Endpoint != "" {
		v.httpURL("audit.otlp.endpoint", a.OTLP.Endpoint)
	}
	for name := range a.OTLP.Headers {
		if !headerName.MatchString(name) {
			v.doc.Add("audit.otlp.headers", "audit.otlp.headers has a name that is no header name", "see RFC 9110, 5.1")
		}
	}
}

func (v *validator) anchors() {
	a := &v.c.Audit
	for i, w := range a.Witnesses {
		path := index("audit.witnesses", i)
		v.httpURL(path+".url", w.URL)
		if strings.Count(w.Key, "+") < 2 {
			v.doc.Add(path+".key", path+".key is no key of a witness", "write its verifier key, NAME+HASH+BASE64")
		}
	}
	if a.Timestamp.URL != "" {
		v.httpURL("audit.timestamp.url", a.Timestamp.URL)
	}
	v.absolute("audit.timestamp.ca_file", a.Timestamp.CAFile)
	c := &a.Copy
	if *c == (Copy{}) {
		return
	}
	v.httpURL("audit.copy.endpoint", c.Endpoint)
	if u, err := url.Parse(c.Endpoint); err == nil && strings.Trim(u.Path, "/") != "" {
		v.doc.Add("audit.copy.endpoint", "audit.copy.endpoint has a path", "write the store's address alone; the bucket has its own setting")
	}
	if c.Bucket == "" {
		v.doc.Add("audit.copy", "audit.copy has no bucket", "add bucket: NAME, of a bucket with Object Lock")
	}
	if c.AccessKey == "" || c.SecretKey == "" {
		v.doc.Add("audit.copy", "audit.copy has no credentials", "add access_key: and secret_key: with references")
	}
	v.secret("audit.copy.access_key", c.AccessKey)
	v.secret("audit.copy.secret_key", c.SecretKey)
	v.absolute("audit.copy.ca_file", c.CAFile)
	if c.Lock < 0 {
		v.doc.Add("audit.copy.lock", "audit.copy.lock is negative", "write 400d, for example")
	}
}

// isRecipient knows the shape of a recipient, not whether its checksum holds:
// an age1 word in lower case, or an SSH public key.
func isRecipient(s string) bool {
	if strings.HasPrefix(s, "ssh-ed25519 ") || strings.HasPrefix(s, "ssh-rsa ") {
		return true
	}
	return strings.HasPrefix(s, "age1") && len(s) > 20 && strings.Trim(s[4:], "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (v *validator) hub() {
	h := &v.c.Hub
	v.absolute("hub.credentials", h.Credentials)
	switch u, err := url.Parse(h.Join); {
	case h.Join == "":
		if h.Credentials != "" {
			v.doc.Add("hub", "hub has credentials and nothing to join", "add join: nats://HOST")
		}
	case err != nil || u.Host == "" || u.User != nil || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		v.doc.Add("hub.join", "hub.join is no NATS URL", "write nats://HOST:PORT or tls://HOST:PORT, without user and password")
	}
	if c := &v.c.Console; c.Listen != "" && !isHostPort(c.Listen) {
		v.doc.Add("console.listen", "console.listen is no host:port", "write 127.0.0.1:7443, for example")
	} else if u, err := url.Parse(c.URL); c.Listen != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" ||
		u.RawQuery != "" || u.Fragment != "" || u.Path != "") {
		v.doc.Add("console.url", "console.url is no address of a site", "write https://HOST or http://HOST:PORT, without a path")
	}
}

func (v *validator) secrets() {
	s := &v.c.Secrets
	for i, f := range s.AgeIdentities {
		v.absolute(index("secrets.age_identities", i), f)
		if f == "" {
			v.doc.Add(index("secrets.age_identities", i), "this file has no name", "take it out")
		}
	}
	if s.Bao.Address != "" {
		v.httpURL("secrets.bao.address", s.Bao.Address)
	}
	v.absolute("secrets.bao.token_file", s.Bao.TokenFile)
	v.absolute("secrets.bao.ca_file", s.Bao.CAFile)
}
