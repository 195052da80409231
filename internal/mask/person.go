package mask

// ssnLength is that of 123-45-6789, bytes.
const ssnLength = 11

// ssnAt reports whether a US social security number starts at the run of three
// digits v[p:]: area, group and serial joined by the same separator, none of them
// zero and the area one that is issued (SSA: not 666, not 900 to 999).
func ssnAt(v []byte, p int) bool {
	if p+ssnLength > len(v) {
		return false
	}
	s := v[p : p+ssnLength]
	sep := s[3]
	if sep != '-' && sep != ' ' || s[6] != sep || !allDigits(s[4:6]) || !allDigits(s[7:]) {
		return false
	}
	if s[0] == '9' || string(s[:3]) == "000" || string(s[:3]) == "666" || string(s[4:6]) == "00" || string(s[7:]) == "0000" {
		return false
	}
	if p >= 2 && v[p-1] == '-' && isDigit(v[p-2]) {
		return false
	}
	rest := v[p+ssnLength:]
	return len(rest) == 0 || !isDigit(rest[0]) && (len(rest) < 2 || rest[0] != '-' || !isDigit(rest[1]))
}

func allDigits(v []byte) bool {
	for _, b := range v {
		if !isDigit(b) {
			return false
		}
	}
	return true
}

// Digits of an international number, without the plus (ITU-T E.164: at most 15;
// fewer than 8 are not taken for one).
const (
	minPhone = 8
	maxPhone = 15
)

// phoneAt looks for a telephone number whose first digits are the run v[p:end]
// and returns where it starts and ends, end 0 for none: + and 8 to 15 digits with
// separators, or the North American forms 202-555-0114 and (202) 555-0114.
func phoneAt(v []byte, p, end int) (int, int) {
	if p >= 1 && v[p-1] == '+' && v[p] != '0' && (p < 2 || !isWord(v[p-2])) {
		if e := internationalEnd(v, p); e > 0 {
			return p - 1, e
		}
	}
	if end-p == 3 && v[p] >= '2' {
		return northAmerican(v, p)
	}
	return 0, 0
}

// internationalEnd is the end of the longest prefix of groups that has at most
// 15 digits, 0 when that has fewer than 8.
func internationalEnd(v []byte, p int) int {
	n, end := 0, 0
	for j := p; ; {
		for ; j < len(v) && isDigit(v[j]); j++ {
			if n++; n > maxPhone {
				return end
			}
		}
		if n >= minPhone {
			end = j
		}
		gap := 0
		for gap < 2 && j+gap < len(v) && isPhoneGap(v[j+gap]) {
			gap++
		}
		if gap == 0 || j+gap >= len(v) || !isDigit(v[j+gap]) {
			return end
		}
		j += gap
	}
}

func isPhoneGap(b byte) bool {
	switch b {
	case ' ', '.', '(', ')', '/', '-':
		return true
	}
	return false
}

func northAmerican(v []byte, p int) (int, int) {
	begin, j := p, p+3
	if j >= len(v) {
		return 0, 0
	}
	switch {
	case v[j] == '-' || v[j] == '.' || v[j] == ' ':
		j++
	case v[j] == ')' && p >= 1 && v[p-1] == '(':
		begin = p - 1
		if j++; j < len(v) && v[j] == ' ' {
			j++
		}
	default:
		return 0, 0
	}
	if j+8 > len(v) {
		return 0, 0
	}
	local := v[j : j+8]
	if local[0] < '2' || !allDigits(local[:3]) || local[3] != '-' && local[3] != '.' && local[3] != ' ' || !allDigits(local[4:]) {
		return 0, 0
	}
	rest := v[j+8:]
	if len(rest) > 0 && isDigit(rest[0]) || len(rest) > 1 && (rest[0] == '-' || rest[0] == '.') && isDigit(rest[1]) {
		return 0, 0
	}
	return begin, j + 8
}
