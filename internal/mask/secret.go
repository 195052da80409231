package mask

import (
	"bytes"
	"encoding/binary"
)

// minSecret is the length of the shortest secret without a header, bytes (an AWS
// access key id).
const minSecret = 20

var (
	tokenRun  = charset("_.-", false) // what secrets are made of
	alnum     = charset("", false)
	alnumLine = charset("_", false)
	alnumDash = charset("-", false)
	urlSafe   = charset("_-", false)
)

// piece is literal text and then at least min characters of a set, as many as
// there are but at most max (0: no limit).
type piece struct {
	literal  string
	set      *[256]bool
	min, max int
}

// secretShapes are the published shapes of providers' keys, by first byte.
var secretShapes = shapesByFirstByte([][]piece{
	{{"AKIA", &alnum, 16, 16}}, {{"ASIA", &alnum, 16, 16}}, {{"AROA", &alnum, 16, 16}}, {{"AIDA", &alnum, 16, 16}}, // AWS
	{{"ghp_", &alnum, 36, 0}}, {{"gho_", &alnum, 36, 0}}, {{"ghu_", &alnum, 36, 0}}, {{"ghs_", &alnum, 36, 0}}, {{"ghr_", &alnum, 36, 0}}, // GitHub
	{{"github_pat_", &alnumLine, 22, 0}},
	{{"glpat-", &urlSafe, 20, 0}},                                                                  // GitLab
	{{"xoxb-", &alnumDash, 15, 0}}, {{"xoxp-", &alnumDash, 15, 0}}, {{"xoxa-", &alnumDash, 15, 0}}, // Slack
	{{"xoxr-", &alnumDash, 15, 0}}, {{"xoxs-", &alnumDash, 15, 0}}, {{"xoxe-", &alnumDash, 15, 0}}, {{"xapp-", &alnumDash, 15, 0}},
	{{"sk_live_", &alnum, 16, 0}}, {{"sk_test_", &alnum, 16, 0}}, {{"rk_live_", &alnum, 16, 0}}, {{"rk_test_", &alnum, 16, 0}}, // Stripe
	{{"whsec_", &alnum, 24, 0}},
	{{"AIza", &urlSafe, 35, 35}}, {{"GOCSPX-", &urlSafe, 28, 28}}, // Google
	{{"npm_", &alnum, 36, 36}}, {{"pypi-", &urlSafe, 32, 0}},
	{{"sk-ant-", &urlSafe, 20, 0}}, {{"sk-proj-", &urlSafe, 20, 0}}, {{"sk-", &alnum, 40, 0}}, // Anthropic, OpenAI
	{{"SG.", &urlSafe, 16, 0}, {".", &urlSafe, 16, 0}},                                    // SendGrid
	{{"hvs.", &urlSafe, 24, 0}}, {{"hvb.", &urlSafe, 24, 0}}, {{"hvr.", &urlSafe, 24, 0}}, // Vault
	{{"dop_v1_", &alnum, 64, 64}}, {{"doo_v1_", &alnum, 64, 64}}, {{"dor_v1_", &alnum, 64, 64}}, // DigitalOcean
	{{"shpat_", &alnum, 32, 32}}, {{"shpca_", &alnum, 32, 32}}, {{"shppa_", &alnum, 32, 32}}, {{"shpss_", &alnum, 32, 32}}, // Shopify
	{{"AGE-SECRET-KEY-1", &alnum, 58, 58}},
	{{"eyJ", &urlSafe, 10, 0}, {".eyJ", &urlSafe, 10, 0}, {".", &urlSafe, 0, 0}}, // JSON Web Token
})

func shapesByFirstByte(shapes [][]piece) (table [256][][]piece) {
	for _, s := range shapes {
		b := s[0].literal[0]
		table[b] = append(table[b], s)
	}
	return table
}

// scanSecret finds keys of known shapes and PEM private keys.
func scanSecret(v []byte, out []Span, detector int) []Span {
	out = scanPEM(v, out, detector)
	var dead deadEnds
	for i := 0; ; {
		begin, end := nextTokenRun(v, i)
		if begin < 0 {
			return out
		}
		for p := begin; p+minSecret <= end; {
			if e := secretAt(v[:end], p, &dead); e > 0 {
				out = append(out, Span{p, e, detector})
				p = e
			} else {
				p++
			}
		}
		i = end
	}
}

// probe is the number of bytes that one look takes in, and stride how far apart
// looks may be so that every run of minSecret bytes holds one.
const (
	probe  = 8
	stride = minSecret - probe + 1
)

// nextTokenRun finds the next run of at least minSecret token characters at or
// after i; begin is -1 when there is none. It only stops where eight bytes in a
// row are no blank, quote, comma or other character below '-'.
func nextTokenRun(v []byte, i int) (begin, end int) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for p := i + stride - 1; p+probe <= len(v); {
		x := binary.LittleEndian.Uint64(v[p:])
		if (x-ones*'-')&^x&high != 0 {
			p += stride
			continue
		}
		begin, end = p, p
		for begin > i && tokenRun[v[begin-1]] {
			begin--
		}
		for end < len(v) && tokenRun[v[end]] {
			end++
		}
		if end-begin >= minSecret {
			return begin, end
		}
		// No longer run can start before the byte that ended this one.
		i = end + 1
		p = max(p+1, end+stride)
	}
	return -1, -1
}

// deadEnds holds, for each shape of several pieces, the offset before which it
// does not start: a start in the same first piece would fail in the same way, and
// trying each would take quadratic time.
type deadEnds [2]int

// of is the slot of a shape of several pieces, by its first byte.
func (d *deadEnds) of(first byte) *int {
	if first == 'e' {
		return &d[1]
	}
	return &d[0]
}

// secretAt is the end of the longest secret that starts at v[p], 0 for none.
func secretAt(v []byte, p int, dead *deadEnds) int {
	longest := 0
	for _, shape := range secretShapes[v[p]] {
		if len(shape) > 1 && p < *dead.of(v[p]) {
			continue
		}
		end, first := matchShape(v, p, shape)
		longest = max(longest, end)
		if end == 0 && len(shape) > 1 {
			*dead.of(v[p]) = first
		}
	}
	return longest
}

// matchShape returns the end of the match, 0 for none, and the end of its first
// piece.
func matchShape(v []byte, p int, shape []piece) (end, first int) {
	for i, s := range shape {
		if len(v)-p < len(s.literal)+s.min || string(v[p:p+len(s.literal)]) != s.literal {
			return 0, first
		}
		p += len(s.literal)
		n := 0
		for p+n < len(v) && s.set[v[p+n]] && (s.max == 0 || n < s.max) {
			n++
		}
		if n < s.min {
			return 0, first
		}
		p += n
		if i == 0 {
			first = p
		}
	}
	return p, first
}

var (
	pemBegin  = []byte("-----BEGIN ")
	pemEnd    = []byte("-----END ")
	pemDashes = []byte("-----")
	pemKey    = []byte("PRIVATE KEY")
)

// maxPEMLabel bounds the text between BEGIN and the dashes, bytes.
const maxPEMLabel = 64

// scanPEM finds private keys (RFC 7468) from BEGIN to the end of the END line, or
// to the end of the value when there is none.
func scanPEM(v []byte, out []Span, detector int) []Span {
	if len(v) < len(pemBegin)+len(pemKey)+len(pemDashes) {
		return out
	}
	for i := 0; ; {
		k := bytes.Index(v[i:], pemBegin)
		if k < 0 {
			return out
		}
		begin := i + k
		i = begin + len(pemBegin)
		label := v[i:min(len(v), i+maxPEMLabel)]
		n := bytes.Index(label, pemDashes)
		if n < 0 || !bytes.Contains(label[:n], pemKey) {
			continue
		}
		end := len(v)
		if k := bytes.Index(v[i:], pemEnd); k >= 0 {
			tail := i + k + len(pemEnd)
			if k := bytes.Index(v[tail:], pemDashes); k >= 0 {
				end = tail + k + len(pemDashes)
			}
		}
		out = append(out, Span{begin, end, detector})
		i = end
	}
}
