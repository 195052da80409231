package mask

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func compile(t testing.TB, rules ...Rule) *Set {
	t.Helper()
	key, err := NewKey(make([]byte, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(rules, map[string]string{"employee": `\bEMP-[0-9]{6}\b`, "anchored": `^[A-Z]{3}[0-9]{3}$`}, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func find(s *Set, v string) []string {
	var out []string
	for _, f := range s.Scan(nil, []byte(v)) {
		out = append(out, v[f.Start:f.End])
	}
	return out
}

// ibanExamples are those of the IBAN registry, one for each country.
const ibanExamples = `AD1200012030200359100100 AE070331234567890123456 AL47212110090000000235698741 AT611904300234573201
AZ21NABZ00000000137010001944 BA391290079401028494 BE68539007547034 BG80BNBG96611020345678 BH67BMAG00001299123456
BR1800360305000010009795493C1 BY13NBRB3600900000002Z00AB00 CH9300762011623852957 CR05015202001026284066
CY17002001280000001200527600 CZ6508000000192000145399 DE89370400440532013000 DK5000400440116243 DO28BAGR00000001212453611324
EE382200221020145685 ES9121000418450200051332 FI2112345600000785 FO6264600001631634 FR1420041010050500013M02606
GB29NWBK60161331926819 GE29NB0000000101904917 GI75NWBK000000007099453 GL8964710001000206 GR1601101250000000012300695
GT82TRAJ01020000001210029690 HR1210010051863000160 HU42117730161111101800000000 IE29AIBK93115212345678 IL620108000000099999999
IQ98NBIQ850123456789012 IS140159260076545510730339 IT60X0542811101000000123456 JO94CBJO0010000000000131000302
KW81CBKU0000000000001234560101 KZ86125KZT5004100100 LB62099900000001001901229114 LC55HEMM000100010012001200023015
LI21088100002324013AA LT121000011101001000 LU280019400644750000 LV80BANK0000435195001 MC5811222000010123456789030
MD24AG000225100013104168 ME25505000012345678951 MK07250120000058984 MR1300020001010000123456753
MT84MALT011000012345MTLCAST001S MU17BOMM0101101030300200000MUR NL91ABNA0417164300 NO9386011117947 PK36SCBL0000001123456702
PL61109010140000071219812874 PS92PALS000000000400123456702 PT50000201231234567890154 QA58DOHB00001234567890ABCDEFG
RO49AAAA1B31007593840000 RS35260005601001611379 SA0380000000608010167519 SC18SSCB11010000000000001497USD
SE4550000000058398257466 SI56263300012039086 SK3112000000198742637541 SM86U0322509800000000270100 ST32000200010192194210112
SV62CENR00000000000000700025 TL380080012345678910157 TN5910006035183598478831 TR330006100519786457841326
UA213223130000026007233566001 VG96VPVG0000012345678901 XK051212012345678906`

func TestIBANRegistry(t *testing.T) {
	s := compile(t, Rule{IBAN, Redact})
	for _, iban := range strings.Fields(ibanExamples) {
		var printed strings.Builder
		for i, r := range iban {
			if i > 0 && i%4 == 0 {
				printed.WriteByte(' ')
			}
			printed.WriteRune(r)
		}
		wrong := []byte(iban)
		wrong[2] = '0' + (wrong[2]-'0'+1)%10
		for _, v := range []string{iban, strings.ToLower(iban), printed.String(), strings.ReplaceAll(printed.String(), " ", "-"), "#x" + iban + "y#"} {
			want := strings.TrimSuffix(strings.TrimPrefix(v, "#x"), "y#")
			if diff := cmp.Diff([]string{want}, find(s, v)); diff != "" {
				t.Errorf("%q: %s", v, diff)
			}
		}
		if got := find(s, string(wrong)); got != nil {
			t.Errorf("%q has a wrong check digit but was found", wrong)
		}
	}
}

// detections are values and what must be found in them; near misses find nothing.
var detections = map[string][]struct {
	in   string
	want string // findings, "|" between them
}{
	PaymentCard: {
		{"4111111111111111", "4111111111111111"},
		{"4111 1111 1111 1111", "4111 1111 1111 1111"},
		{"4111-1111-1111-1111.", "4111-1111-1111-1111"},
		{"card:378282246310005, exp 12/27", "378282246310005"},
		{"3782 822463 10005", "3782 822463 10005"},
		{"x4111111111111111y", "4111111111111111"},
		{"fee4111111111111111", "4111111111111111"},
		{"4222222222222", "4222222222222"},
		{"4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"},
		{"4111111111111111 5555555555554444", "4111111111111111|5555555555554444"},
		{"12 4111 1111 1111 1111 07", "4111 1111 1111 1111"},
		{"6304000000000000", "6304000000000000"},
		{"2223003122003222", "2223003122003222"},
		{"(4111111111111111)", "4111111111111111"},
		{"a,4111111111111111", "4111111111111111"},
		{"4111111111111112", ""},                      // Luhn
		{"1234567890123456", ""},                      // no network
		{"41111111111111", ""},                        // Visa has no 14
		{"41111111111111111111", ""},                  // 20 digits
		{"0.4111111111111111", ""},                    // a decimal
		{"4111  1111 1111 1111", ""},                  // two spaces
		{"2026-01-05 09:00:00.411111", ""},            // a time
		{"9f86d081884c4111111111111111a8c2c1", ""},    // a digest
		{"550e8400-e29b-41d4-a4111-111111111111", ""}, // a UUID, nearly
		{"1700000000000000", ""},                      // microseconds
	},
	EmailAddr: {
		{"ada@example.com", "ada@example.com"},
		{"mailto:<ada.moreno+shop@mail.example.co.uk>,", "ada.moreno+shop@mail.example.co.uk"},
		{"chloé@exämple.fr", "chloé@exämple.fr"},
		{"a@b.co and c@d.org", "a@b.co|c@d.org"},
		{"...ada@example.com...", "ada@example.com"},
		{"ada@example.com2024", "ada@example.com2024"},
		{"ada@example.com.123", "ada@example.com"},
		{"ada@localhost", ""},
		{"@example.com", ""},
		{"lodash@4.17.21", ""},
		{"a @ b.com", ""},
		{"user@@example", ""},
	},
	Phone: {
		{"+1 202-555-0114", "+1 202-555-0114"},
		{"+442079460018", "+442079460018"},
		{"+44 (0)20 7946 0018", "+44 (0)20 7946 0018"},
		{"tel:(202) 555-0114", "(202) 555-0114"},
		{"202-555-0114", "202-555-0114"},
		{"202.555.0114 ext 5", "202.555.0114"},
		{"+49 30 23125 123 2026 12 31", "+49 30 23125 123"},
		{"102-555-0114", ""},
		{"202-155-0114", ""},
		{"1202-555-0114", ""},
		{"202-555-01145", ""},
		{"a+4912345678", ""},
		{"+1234567", ""},
		{"+0123456789", ""},
		{"2026-01-05 09:00:00+00", ""},
	},
	SSN: {
		{"123-45-6789", "123-45-6789"},
		{"ssn 123 45 6789", "123 45 6789"},
		{"x899-99-9999", "899-99-9999"},
		{"000-45-6789", ""}, {"666-45-6789", ""}, {"900-45-6789", ""}, {"123-00-6789", ""}, {"123-45-0000", ""},
		{"123-45 6789", ""}, {"123-45-67890", ""}, {"1123-45-6789", ""}, {"1-123-45-6789", ""}, {"123456789", ""},
	},
	IP: {
		{"10.0.0.1", "10.0.0.1"},
		{"from 192.0.2.17:8080.", "192.0.2.17"},
		{"10.0.0.0/8, 172.16.0.1", "10.0.0.0|172.16.0.1"},
		{"2001:db8::1", "2001:db8::1"},
		{"[fe80::1]:443", "fe80::1"},
		{"::ffff:192.0.2.1", "192.0.2.1"}, {"64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1"},
		{"2001:0db8:0000:0000:0000:ff00:0042:8329.", "2001:0db8:0000:0000:0000:ff00:0042:8329"},
		{"256.1.1.1", ""}, {"1.2.3", ""}, {"1.2.3.4.5", ""}, {"v1.2.3.4", ""}, {"01.2.3.4", ""},
		{"09:00:00", ""}, {"std::vector", ""}, {"a::b", ""}, {"00:1b:44:11:3a:b7", ""}, {"::1", ""}, {"00:11:22:33:44:55:66:77", ""},
	},
	Secret: {
		{"key=AKIAIOSFODNN7EXAMPLE;", "AKIAIOSFODNN7EXAMPLE"},
		{"ghp_" + strings.Repeat("a1", 18), "ghp_" + strings.Repeat("a1", 18)},
		{"xoxb-123456789012-abcdefABCDEF", "xoxb-123456789012-abcdefABCDEF"},
		{"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"},
		{"-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\n", "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----"},
		{"-----BEGIN PRIVATE KEY-----\nMHcC", "-----BEGIN PRIVATE KEY-----\nMHcC"},
		{"-----BEGIN CERTIFICATE-----\nMHcC\n-----END CERTIFICATE-----", ""},
		{"task-management-system-for-the-whole-enterprise-and-more", ""},
		{"AKIA-not-a-key-at-all", ""},
		{"ghp_short", ""},
	},
	"employee": {
		{"EMP-123456", "EMP-123456"}, {"by EMP-123456, EMP-654321", "EMP-123456|EMP-654321"}, {"EMP-1234567", ""}, {"XEMP-123456", ""},
	},
}

func TestDetections(t *testing.T) {
	for detector, cases := range detections {
		s := compile(t, Rule{detector, Redact})
		for _, c := range cases {
			if got := strings.Join(find(s, c.in), "|"); got != c.want {
				t.Errorf("%s in %q: found %q, want %q", detector, c.in, got, c.want)
			}
		}
	}
}

// agree compares a scanner with its reference on one value.
func agree(t *testing.T, detector string, s *Set, v string) {
	t.Helper()
	var want []Span
	for _, f := range refFind(detector, v) {
		want = append(want, Span{f[0], f[1], 0})
	}
	if len(want) > 1 {
		want = s.join(want, 0)
	}
	if diff := cmp.Diff(want, s.Scan(nil, []byte(v))); diff != "" {
		t.Fatalf("%s in %q: reference (-), scanner (+):\n%s", detector, v, diff)
	}
}

// fragments are what random values are put together from.
var fragments = strings.Split("4111111111111111|4111|1111|111|5555|378282|246310005|2223003122003222|6304|4|1|11|0|00|9|123|45|6789|"+
	" |  |-|--|.|..|,|:|::|/|(|)|) |+|@|_|%|a|f|e|x|z|E|Z|é|\xff|\"|\\|{|}|example|com|.com|co.uk|ada|ada@|@example.com|"+
	"DE89|3704 0044 0532 0130 00|GB82WEST12345698765432|NO93 8601 1117 947|DE|89|BE68539007547034|"+
	"202|555|0114|+1 202-555-0114|+49|666|900|10.0.0.1|192|256|2001:db8|fe80|::1|db8|ffff|"+
	"AKIA|IOSFODNN7EXAMPLE|ghp_|eyJ|eyJhbGciOiJIUzI1NiJ9|.eyJzdWIiOiIxMjM0In0|.c2ln|SG.|sk-|sk-ant-|xoxb-|npm_|-----BEGIN |-----END |PRIVATE KEY|-----|"+
	"aaaaaaaaaaaaaaaaaaaa|00000000000000000000000000000000|\n|deadbeef|4a5b6c", "|")

func randomValue(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(14) {
		b.WriteString(fragments[r.IntN(len(fragments))])
	}
	return b.String()
}

func TestScannersAgreeWithReference(t *testing.T) {
	for _, detector := range BuiltIns {
		t.Run(detector, func(t *testing.T) {
			s := compile(t, Rule{detector, Redact})
			for _, c := range detections[detector] {
				agree(t, detector, s, c.in)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 5000 {
				agree(t, detector, s, randomValue(r))
			}
			for _, network := range networks { // every network, by valid and near-valid numbers
				for length := minCard; length <= maxCard; length++ {
					agree(t, detector, s, withCheckDigit(fmt.Sprintf("%06d%0*d", network.low, length-7, r.IntN(100000))))
					agree(t, detector, s, withCheckDigit(fmt.Sprintf("%06d%0*d", network.high, length-7, r.IntN(100000))))
					agree(t, detector, s, withCheckDigit(fmt.Sprintf("%06d%0*d", network.low-1, length-7, r.IntN(100000))))
					agree(t, detector, s, withCheckDigit(fmt.Sprintf("%06d%0*d", network.high+1, length-7, r.IntN(100000))))
				}
			}
		})
	}
}

func withCheckDigit(digits string) string {
	for d := '0'; d <= '9'; d++ {
		if refLuhn(digits + string(d)) {
			return digits + string(d)
		}
	}
	panic("unreachable")
}

func FuzzScanners(f *testing.F) {
	for _, cases := range detections {
		for _, c := range cases {
			f.Add([]byte(c.in))
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		f.Add([]byte(randomValue(r)))
	}
	sets := map[string]*Set{}
	for _, d := range BuiltIns {
		sets[d] = compile(f, Rule{d, Redact})
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		for d, s := range sets {
			agree(t, d, s, string(v))
		}
	})
}

// TestLongValues plants a card at the end of values that are longer than any
// buffer, and makes sure that hostile ones cost no more than linear time: the
// test would not end otherwise.
func TestLongValues(t *testing.T) {
	s := compile(t, Rule{PaymentCard, Redact}, Rule{IBAN, Redact}, Rule{EmailAddr, Redact}, Rule{Phone, Redact}, Rule{SSN, Redact}, Rule{IP, Redact}, Rule{Secret, Redact}, Rule{"employee", Redact})
	const size = 4 << 20
	for _, filler := range []string{"x", "1", "1 ", "4111-", "a4111111111111111", "@", "a@", ":", "f:", "::", "1.", "+1", "DE89", "AKIA", "eyJ", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-", ".", "\xff", "EMP-"} {
		v := strings.Repeat(filler, size/len(filler)) + "\n;4111 1111 1111 1111"
		got := find(s, v)
		if len(got) == 0 || !strings.HasSuffix(got[len(got)-1], "4111 1111 1111 1111") {
			t.Errorf("filler %q: the card at the end was not found", filler)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, c := range []struct {
		rules  []Rule
		custom map[string]string
		want   string
	}{
		{[]Rule{{"nonsense", Redact}}, nil, "unknown detector"},
		{[]Rule{{PaymentCard, 0}}, nil, "no masking method"},
		{[]Rule{{PaymentCard, Hash}}, nil, "masking key"},
		{[]Rule{{"x", Redact}}, map[string]string{"x": "("}, "missing closing"},
		{[]Rule{{"x", Redact}}, map[string]string{"x": "a*"}, "empty string"},
		{[]Rule{{"x", Redact}}, map[string]string{"x": strings.Repeat("a", MaxPattern+1)}, "at most"},
	} {
		if _, err := Compile(c.rules, c.custom, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.rules, err, c.want)
		}
	}
}

func TestRequiredLiteral(t *testing.T) {
	for expr, want := range map[string]string{
		`\bEMP-[0-9]{6}\b`: "EMP-", `(?i)emp`: "", `abc|abd`: "ab", `(foo)+bar?`: "foo", `x{0,3}yz`: "yz", `[0-9]+`: "", `é9`: "",
	} {
		p, err := compilePattern(expr, 0)
		if err != nil {
			t.Fatal(err)
		}
		if string(p.literal) != want {
			t.Errorf("%s: %q, want %q", expr, p.literal, want)
		}
	}
}
