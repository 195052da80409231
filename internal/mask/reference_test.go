package mask

import (
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The references below say what each detector finds, slowly and plainly: regular
// expressions and checks over strings. The scanners must agree with them.

func refFind(detector, s string) [][2]int {
	switch detector {
	case PaymentCard:
		return refCards(s)
	case IBAN:
		return refIBANs(s)
	case EmailAddr:
		return refEmails(s)
	case Phone:
		return refPhones(s)
	case SSN:
		return refSSNs(s)
	case IP:
		return refIPs(s)
	case Secret:
		return refSecrets(s)
	}
	panic(detector)
}

func refLuhn(digits string) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			d = []int{0, 2, 4, 6, 8, 1, 3, 5, 7, 9}[d]
		}
		sum += d
	}
	return sum%10 == 0
}

var refNetworks = []struct {
	prefix  string
	lengths string
}{
	{`4`, "13 16 19"}, {`5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720`, "16"}, {`3[47]`, "15"},
	{`30[0-5]|3095|36|38|39`, "14 15 16 17 18 19"}, {`6011|64[4-9]|65|62|220[0-4]|352[89]|35[3-8]`, "16 17 18 19"},
	{`50|5[678]|6304|67`, "12 13 14 15 16 17 18 19"}, {`60698[5-9]|60699|607|608[0-4]|608500|63[789]|9792[0-7]|97928`, "16"},
}

func refIsCard(digits string) bool {
	for _, n := range refNetworks {
		if regexp.MustCompile(`^(?:`+n.prefix+`)`).MatchString(digits) && slices.Contains(strings.Fields(n.lengths), strconv.Itoa(len(digits))) {
			return refLuhn(digits)
		}
	}
	return false
}

var (
	refChain = regexp.MustCompile(`[0-9]+(?:[ -][0-9]+)*`)
	refGroup = regexp.MustCompile(`[0-9]+`)
)

func refCards(s string) (found [][2]int) {
	for _, chain := range refChain.FindAllStringIndex(s, -1) {
		groups := refGroup.FindAllStringIndex(s[chain[0]:chain[1]], -1)
		for i := 0; i < len(groups); i++ {
			for j := len(groups) - 1; j >= i; j-- {
				even := true
				for _, g := range groups[i:j] {
					even = even && g[1]-g[0] >= 3
				}
				if !even && (i != 0 || j != len(groups)-1) {
					continue
				}
				b, e := chain[0]+groups[i][0], chain[0]+groups[j][1]
				digits := strings.NewReplacer(" ", "", "-", "").Replace(s[b:e])
				if len(digits) < 12 || len(digits) > 19 || !refIsCard(digits) || refInside(s, b, e) {
					continue
				}
				found = append(found, [2]int{b, e})
				i = j
				break
			}
		}
	}
	return found
}

// refInside: a decimal's fraction, or part of a digest or UUID.
func refInside(s string, b, e int) bool {
	if regexp.MustCompile(`[0-9]\.$`).MatchString(s[:b]) {
		return true
	}
	left := regexp.MustCompile(`[0-9A-Fa-f]{0,64}$`).FindString(s[:b])
	right := regexp.MustCompile(`^[0-9A-Fa-f]{0,64}`).FindString(s[e:])
	if left == "" && right == "" {
		return false
	}
	if len(left) < 64 && regexp.MustCompile(`[G-Zg-z]$`).MatchString(s[:b-len(left)]) ||
		len(right) < 64 && regexp.MustCompile(`^[G-Zg-z]`).MatchString(s[e+len(right):]) {
		return false
	}
	return len(left)+e-b+len(right) >= 24 || strings.Contains(s[b:e], "-")
}

func refIBANs(s string) (found [][2]int) {
	for i := 0; i < len(s); i++ {
		if e := refIBANAt(s, i); e > 0 {
			found = append(found, [2]int{i, e})
			i = e - 1
		}
	}
	return found
}

// refStructures is written from the registry's notation on its own.
var refStructures = func() map[string]*regexp.Regexp {
	m := map[string]*regexp.Regexp{}
	fields := strings.Fields(ibanStructures)
	for i := 0; i < len(fields); i += 2 {
		expr := regexp.MustCompile(`([nac])(\d+)`).ReplaceAllStringFunc(fields[i+1], func(p string) string {
			class := map[byte]string{'n': "[0-9]", 'a': "[A-Za-z]", 'c': "[0-9A-Za-z]"}[p[0]]
			return "(?:[ -]?" + class + "){" + p[1:] + "}"
		})
		m[fields[i]] = regexp.MustCompile(`^(?i:` + fields[i] + `)[0-9]{2}` + expr)
	}
	return m
}()

func refIBANAt(s string, i int) int {
	if i+4 > len(s) {
		return 0
	}
	re := refStructures[strings.ToUpper(s[i:i+2])]
	if re == nil {
		return 0
	}
	m := re.FindString(s[i:])
	if m == "" {
		return 0
	}
	text := strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(m))
	number := ""
	for _, r := range text[4:] + text[:4] {
		if r >= 'A' {
			number += strconv.Itoa(int(r-'A') + 10)
		} else {
			number += string(r)
		}
	}
	n, _ := new(big.Int).SetString(number, 10)
	if n.Mod(n, big.NewInt(97)).Int64() != 1 {
		return 0
	}
	return i + len(m)
}

var refEmail = regexp.MustCompile(`[A-Za-z0-9_%+-][A-Za-z0-9._%+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z][A-Za-z0-9-]+`)

func refEmails(s string) (found [][2]int) {
	b := []byte(s)
	for i := range b {
		if b[i] >= 0x80 {
			b[i] = 'z' // other alphabets count as letters
		}
	}
	for _, m := range refEmail.FindAllIndex(b, -1) {
		found = append(found, [2]int{m[0], m[1]})
	}
	return found
}

var (
	refInternational = regexp.MustCompile(`^\+[1-9][0-9]*(?:[ .()/-]{1,2}[0-9]+)*`)
	refNANP          = regexp.MustCompile(`^(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}`)
)

func refPhones(s string) (found [][2]int) {
	for i := 0; i < len(s); i++ {
		e := 0
		if m := refInternational.FindString(s[i:]); m != "" && !regexp.MustCompile(`[A-Za-z0-9_]$`).MatchString(s[:i]) {
			digits := 0
			for _, g := range refGroup.FindAllStringIndex(m, -1) {
				if digits += g[1] - g[0]; digits > 15 {
					break
				}
				if digits >= 8 {
					e = i + g[1]
				}
			}
		}
		if m := refNANP.FindString(s[i:]); e == 0 && m != "" &&
			!(s[i] != '(' && i > 0 && isDigit(s[i-1])) &&
			!regexp.MustCompile(`^(?:[0-9]|[.-][0-9])`).MatchString(s[i+len(m):]) {
			e = i + len(m)
		}
		if e > 0 {
			found = append(found, [2]int{i, e})
			i = e - 1
		}
	}
	return found
}

var refSSN = regexp.MustCompile(`^(?:[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3} [0-9]{2} [0-9]{4})`)

func refSSNs(s string) (found [][2]int) {
	for i := 0; i < len(s); i++ {
		m := refSSN.FindString(s[i:])
		if m == "" || regexp.MustCompile(`(?:[0-9]|[0-9]-)$`).MatchString(s[:i]) || regexp.MustCompile(`^(?:[0-9]|-[0-9])`).MatchString(s[i+11:]) {
			continue
		}
		if area := m[:3]; area == "000" || area == "666" || area[0] == '9' || m[4:6] == "00" || m[7:] == "0000" {
			continue
		}
		found = append(found, [2]int{i, i + 11})
		i += 10
	}
	return found
}

var (
	refV6Run   = regexp.MustCompile(`[0-9A-Fa-f:.]+`)
	refOctet   = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	refQuad    = regexp.MustCompile(`^` + refOctet + `\.` + refOctet + `\.` + refOctet + `\.(?:[0-9]+)`)
	refIsOctet = regexp.MustCompile(`^` + refOctet + `$`)
)

func refIPs(s string) (found [][2]int) {
	for i := 0; i < len(s); i++ {
		m := refQuad.FindString(s[i:])
		if m == "" || !refIsOctet.MatchString(m[strings.LastIndexByte(m, '.')+1:]) || regexp.MustCompile(`[A-Za-z0-9_.]$`).MatchString(s[:i]) ||
			regexp.MustCompile(`^(?:[A-Za-z0-9_]|\.[0-9])`).MatchString(s[i+len(m):]) {
			continue
		}
		found = append(found, [2]int{i, i + len(m)})
		i += len(m) - 1
	}
	for _, run := range refV6Run.FindAllStringIndex(s, -1) {
		text := s[run[0]:run[1]]
		begin := run[0] + len(text) - len(strings.TrimLeft(text, "."))
		text = strings.Trim(text, ".")
		if strings.HasPrefix(text, ":") && !strings.HasPrefix(text, "::") {
			text, begin = text[1:], begin+1
		}
		if strings.HasSuffix(text, ":") && !strings.HasSuffix(text, "::") {
			text = text[:len(text)-1]
		}
		end := begin + len(text)
		if regexp.MustCompile(`[A-Za-z0-9_]$`).MatchString(s[:begin]) || regexp.MustCompile(`^[A-Za-z0-9_]`).MatchString(s[end:]) {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is6() || a == netip.IPv6Unspecified() || a == netip.IPv6Loopback() {
			continue
		}
		if regexp.MustCompile(`^([0-9A-Fa-f]{2}:){7}[0-9A-Fa-f]{2}$`).MatchString(text) {
			continue
		}
		groups := len(strings.FieldsFunc(text, func(r rune) bool { return r == ':' }))
		if groups >= 3 || groups == 2 && regexp.MustCompile(`^[23fF][0-9A-Fa-f]{3}:`).MatchString(text) {
			found = append(found, [2]int{begin, end})
		}
	}
	return found
}

var refShapes = func() *regexp.Regexp {
	re := regexp.MustCompile(strings.Join([]string{
		`(?:AKIA|ASIA|AROA|AIDA)[A-Za-z0-9]{16}`, `gh[pousr]_[A-Za-z0-9]{36,}`, `github_pat_[A-Za-z0-9_]{22,}`, `glpat-[A-Za-z0-9_-]{20,}`,
		`(?:xox[bpares]|xapp)-[A-Za-z0-9-]{15,}`, `[sr]k_(?:live|test)_[A-Za-z0-9]{16,}`, `whsec_[A-Za-z0-9]{24,}`,
		`AIza[A-Za-z0-9_-]{35}`, `GOCSPX-[A-Za-z0-9_-]{28}`, `npm_[A-Za-z0-9]{36}`, `pypi-[A-Za-z0-9_-]{32,}`,
		`sk-(?:ant|proj)-[A-Za-z0-9_-]{20,}`, `sk-[A-Za-z0-9]{40,}`, `SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`, `hv[sbr]\.[A-Za-z0-9_-]{24,}`,
		`do[por]_v1_[A-Za-z0-9]{64}`, `shp(?:at|ca|pa|ss)_[A-Za-z0-9]{32}`, `AGE-SECRET-KEY-1[A-Za-z0-9]{58}`,
		`eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*`,
	}, "|"))
	re.Longest()
	return re
}()

var (
	refPEMBegin = regexp.MustCompile(`-----BEGIN `)
	refPEMEnd   = regexp.MustCompile(`(?s)-----END .*?-----`)
)

func refSecrets(s string) (found [][2]int) {
	for _, m := range refShapes.FindAllStringIndex(s, -1) {
		found = append(found, [2]int{m[0], m[1]})
	}
	for i := 0; i < len(s); {
		m := refPEMBegin.FindStringIndex(s[i:])
		if m == nil {
			break
		}
		b := i + m[0]
		i += m[1]
		label, _, ok := strings.Cut(s[i:min(len(s), i+64)], "-----")
		if !ok || !strings.Contains(label, "PRIVATE KEY") {
			continue
		}
		e := len(s)
		if m := refPEMEnd.FindStringIndex(s[i:]); m != nil {
			e = i + m[1]
		}
		found = append(found, [2]int{b, e})
		i = e
	}
	slices.SortFunc(found, func(a, b [2]int) int { return a[0] - b[0] })
	return found
}
