package mask

import "strings"

// minIBAN is the length of the shortest IBAN (Norway), bytes.
const minIBAN = 15

// ibanStructures are the BBAN structures of the IBAN registry (ISO 13616):
// n digits, a letters, c either. Letters of either case are taken.
const ibanStructures = `
AD n8c12  AE n19    AL n8c16  AT n16    AZ a4c20  BA n16    BE n12    BG a4n6c8 BH a4c14
BI n23    BR n23a1c1 BY c4n4c16 CH n5c12 CR n18   CY n8c16  CZ n20    DE n18    DJ n23
DK n14    DO c4n20  EE n16    EG n25    ES n20    FI n14    FK a2n12  FO n14    FR n10c11n2
GB a4n14  GE a2n16  GI a4c15  GL n14    GR n7c16  GT c24    HN a4n20  HR n17    HU n24
IE a4n14  IL n19    IQ a4n15  IS n22    IT a1n10c12 JO a4n4c18 KW a4c22 KZ n3c13 LB n4c20
LC a4c24  LI n5c12  LT n16    LU n3c13  LV a4c13  LY n21    MC n10c11n2 MD c20  ME n18
MK n3c10n2 MN n16   MR n23    MT a4n5c18 MU a4n19a3 NI a4n20 NL a4n10 NO n11    OM n3c16
PK a4c16  PL n24    PS a4c21  PT n21    QA a4c21  RO a4c16  RS n18    RU n14c15 SA n2c18
SC a4n20a3 SD n14   SE n20    SI n15    SK n20    SM a1n10c12 SO n19  ST n21    SV a4n20
TL n19    TN n20    TR n6c16  UA n6c19  VA n18    VG a4n16  XK n16    YE a4n4c18`

// bbans maps a country, 26 times the first letter plus the second, to its
// structure written out: one n, a or c for each character.
var bbans = func() (table [26 * 26]string) {
	fields := strings.Fields(ibanStructures)
	for i := 0; i < len(fields); i += 2 {
		country, structure := fields[i], fields[i+1]
		var full strings.Builder
		for j := 0; j < len(structure); {
			kind, n := structure[j], 0
			for j++; j < len(structure) && isDigit(structure[j]); j++ {
				n = n*10 + int(structure[j]-'0')
			}
			full.WriteString(strings.Repeat(string(kind), n))
		}
		table[int(country[0]-'A')*26+int(country[1]-'A')] = full.String()
	}
	return table
}()

// ibanAt returns the end of the IBAN that starts at v[p], 0 for none. The
// country's letters and the check digits stand together; the rest may be broken
// by single spaces or dashes.
func ibanAt(v []byte, p int) int {
	if p+minIBAN > len(v) || !isLetter(v[p]) || !isLetter(v[p+1]) || !isDigit(v[p+2]) || !isDigit(v[p+3]) {
		return 0
	}
	c0, c1 := int(v[p]|0x20-'a'), int(v[p+1]|0x20-'a')
	bban := bbans[c0*26+c1]
	if bban == "" {
		return 0
	}
	r, j := 0, p+4
	for i := 0; i < len(bban); i++ {
		if j+1 < len(v) && (v[j] == ' ' || v[j] == '-') {
			j++
		}
		if j >= len(v) {
			return 0
		}
		b := v[j]
		j++
		switch {
		case isDigit(b) && bban[i] != 'a':
			r = (r*10 + int(b-'0')) % 97
		case isLetter(b) && bban[i] != 'n':
			r = (r*100 + int(b|0x20-'a') + 10) % 97
		default:
			return 0
		}
	}
	// ISO 7064 MOD 97-10 over the number with its first four characters moved to
	// the end.
	r = (r*100 + c0 + 10) % 97
	r = (r*100 + c1 + 10) % 97
	r = (r*100 + int(v[p+2]-'0')*10 + int(v[p+3]-'0')) % 97
	if r != 1 {
		return 0
	}
	return j
}
