package mask

import (
	"fmt"
	"slices"
	"strings"
)

// Rule asks for one detector's findings to be masked by a method.
type Rule struct {
	Detector string
	Method   Method
}

// The built-in detectors.
const (
	PaymentCard = "payment_card"
	IBAN        = "iban"
	EmailAddr   = "email"
	Phone       = "phone"
	SSN         = "us_ssn"
	Secret      = "secret"
	IP          = "ip"
)

// BuiltIns lists the built-in detectors in the order of the contract.
var BuiltIns = [...]string{PaymentCard, IBAN, EmailAddr, Phone, SSN, IP, Secret}

// shortest is the length of the shortest finding of each, bytes.
var shortest = map[string]int{
	PaymentCard: minCard, IBAN: minIBAN, EmailAddr: len("a@b.cd"), Phone: minPhone + 1, SSN: len("123-45-6789"),
	IP: len("1::2:3"), Secret: minSecret,
}

// Set is a compiled set of detectors, immutable and safe for concurrent use.
type Set struct {
	detectors []detector
	key       *Key
	minLen    int

	// Indexes into detectors, -1 for those that nobody asked for.
	card, iban, email, phone, ssn, ip, secret int
	patterns                                  []pattern
	numbers                                   bool // any detector that starts at digits
}

type detector struct {
	name   string
	method Method
}

// Compile makes a set. A detector named twice gets the strictest of its methods;
// names other than the built-in ones are keys of custom, whose values are RE2
// patterns. Hash and Token need a key.
func Compile(rules []Rule, custom map[string]string, key *Key) (*Set, error) {
	s := &Set{key: key, card: -1, iban: -1, email: -1, phone: -1, ssn: -1, ip: -1, secret: -1}
	builtIn := map[string]*int{PaymentCard: &s.card, IBAN: &s.iban, EmailAddr: &s.email, Phone: &s.phone, SSN: &s.ssn, IP: &s.ip, Secret: &s.secret}
	byName := make(map[string]int)
	for _, r := range rules {
		if r.Method.String() == "" {
			return nil, fmt.Errorf("detector %q: no masking method", r.Detector)
		}
		if key == nil && (r.Method == Hash || r.Method == Token) {
			return nil, fmt.Errorf("detector %q: method %v needs the masking key", r.Detector, r.Method)
		}
		if i, ok := byName[r.Detector]; ok {
			s.detectors[i].method = Strictest(s.detectors[i].method, r.Method)
			continue
		}
		i := len(s.detectors)
		if index := builtIn[r.Detector]; index != nil {
			*index = i
			s.limit(shortest[r.Detector])
		} else if expr, ok := custom[r.Detector]; ok {
			p, err := compilePattern(expr, i)
			if err != nil {
				return nil, fmt.Errorf("detector %q: %w", r.Detector, err)
			}
			s.patterns = append(s.patterns, p)
			s.limit(1)
		} else {
			return nil, fmt.Errorf("unknown detector %q: use %s, or define it under detectors", r.Detector, strings.Join(BuiltIns[:], ", "))
		}
		byName[r.Detector] = i
		s.detectors = append(s.detectors, detector{r.Detector, r.Method})
	}
	s.numbers = s.card >= 0 || s.iban >= 0 || s.ssn >= 0 || s.phone >= 0 || s.ip >= 0
	return s, nil
}

func (s *Set) limit(n int) {
	if s.minLen == 0 || n < s.minLen {
		s.minLen = n
	}
}

// Len is the number of detectors; indexes into counts and Span.Detector are
// below it.
func (s *Set) Len() int { return len(s.detectors) }

// Detector is the name and method of a detector by its index.
func (s *Set) Detector(i int) (name string, m Method) {
	return s.detectors[i].name, s.detectors[i].method
}

// Span is a finding: value[Start:End].
type Span struct {
	Start, End int
	Detector   int // the one with the strictest method, where several overlap
}

// Scan appends the findings in a value to dst, in order and without overlap:
// overlapping ones are joined. The whole value is searched, however long.
func (s *Set) Scan(dst []Span, v []byte) []Span {
	if len(v) < s.minLen || len(s.detectors) == 0 {
		return dst
	}
	begin := len(dst)
	if s.numbers {
		dst = s.scanNumbers(v, dst)
	}
	if s.ip >= 0 {
		dst = scanIPv6(v, dst, s.ip)
	}
	if s.email >= 0 {
		dst = scanEmail(v, dst, s.email)
	}
	if s.secret >= 0 {
		dst = scanSecret(v, dst, s.secret)
	}
	for i := range s.patterns {
		dst = s.patterns[i].scan(v, dst)
	}
	if len(dst)-begin > 1 {
		dst = s.join(dst, begin)
	}
	return dst
}

// join sorts the findings from begin on and merges those that overlap.
func (s *Set) join(spans []Span, begin int) []Span {
	found := spans[begin:]
	slices.SortFunc(found, func(a, b Span) int {
		if a.Start != b.Start {
			return a.Start - b.Start
		}
		return b.End - a.End
	})
	n := 0
	for _, f := range found[1:] {
		last := &found[n]
		if f.Start >= last.End {
			n++
			found[n] = f
			continue
		}
		last.End = max(last.End, f.End)
		if s.detectors[f.Detector].method > s.detectors[last.Detector].method {
			last.Detector = f.Detector
		}
	}
	return spans[:begin+n+1]
}

// AppendMasked appends text with every finding masked. hits counts the findings
// by detector; it may be nil. A finding of a detector with method Null makes the
// whole value NULL.
func (s *Set) AppendMasked(dst, v []byte, hits []int64) ([]byte, Result) {
	var buf [8]Span
	spans := s.Scan(buf[:0], v)
	if len(spans) == 0 {
		return dst, Unchanged
	}
	return s.appendSpans(dst, v, spans, hits)
}

// AppendMessage appends text that cannot be NULL, such as a field of an error: a
// finding of a detector with method Null is redacted.
func (s *Set) AppendMessage(dst, v []byte, hits []int64) []byte {
	var buf [8]Span
	last := 0
	for _, f := range s.Scan(buf[:0], v) {
		count(hits, f)
		dst = append(dst, v[last:f.Start]...)
		dst = appendText(dst, s.detectors[f.Detector].method, v[f.Start:f.End], s.key)
		last = f.End
	}
	return append(dst, v[last:]...)
}

func (s *Set) appendSpans(dst, v []byte, spans []Span, hits []int64) ([]byte, Result) {
	begin, last := len(dst), 0
	for _, f := range spans {
		count(hits, f)
	}
	for _, f := range spans {
		m := s.detectors[f.Detector].method
		if m == Null {
			return dst[:begin], IsNull
		}
		dst = append(dst, v[last:f.Start]...)
		dst = appendText(dst, m, v[f.Start:f.End], s.key)
		last = f.End
	}
	return append(dst, v[last:]...), Changed
}

func count(hits []int64, f Span) {
	if hits != nil {
		hits[f.Detector]++
	}
}
