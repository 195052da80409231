package mask

// Lengths of a primary account number (ISO/IEC 7812-1).
const (
	minCard = 12
	maxCard = 19
)

// network is a range of issuer identification numbers and the lengths that its
// cards have, as a bit set.
type network struct {
	low, high uint32 // first six digits
	lengths   uint32
}

// bit sets of lengths
const (
	len13      = 1 << 13
	len14      = 1 << 14
	len15      = 1 << 15
	len16      = 1 << 16
	len19      = 1 << 19
	len18      = 1 << 18
	from16to19 = len16 | 1<<17 | len18 | len19
	from14to19 = len14 | len15 | from16to19
	from12to19 = 1<<12 | len13 | from14to19
)

// networks are the published ranges of the payment networks that keep the Luhn
// check digit.
var networks = []network{
	{220000, 220499, from16to19},            // Mir
	{222100, 272099, len16},                 // Mastercard
	{300000, 305999, from14to19},            // Diners Club
	{309500, 309599, from14to19},            // Diners Club
	{340000, 349999, len15},                 // American Express
	{352800, 358999, from16to19},            // JCB
	{360000, 369999, from14to19},            // Diners Club
	{370000, 379999, len15},                 // American Express
	{380000, 399999, from14to19},            // Diners Club
	{400000, 499999, len13 | len16 | len19}, // Visa
	{500000, 509999, from12to19},            // Maestro, Verve, RuPay, Dankort
	{510000, 559999, len16},                 // Mastercard
	{560000, 589999, from12to19},            // Maestro
	{601100, 601199, from16to19},            // Discover
	{606985, 608500, len16},                 // RuPay
	{620000, 629999, from16to19},            // UnionPay
	{630400, 630499, from12to19},            // Maestro
	{637000, 639999, len16},                 // InstaPayment
	{644000, 659999, from16to19},            // Discover, RuPay, Verve, Troy
	{670000, 679999, from12to19},            // Maestro
	{979200, 979289, len16},                 // Troy
}

// mayBeCard is a cheap test of the digit v[p]: no network starts with 0 or 1, and
// a card has no other byte than digits and separators among its first twelve.
func mayBeCard(v []byte, p int) bool {
	if v[p] < '2' || len(v)-p < minCard {
		return false
	}
	last := v[p+minCard-1]
	return isDigit(last) || last == ' ' || last == '-'
}

// cardAt looks for a payment card that starts at the digit v[p], the first of a
// run, and returns its end (0 for none) and the offset from which a further card
// may start.
//
// A card is 12 to 19 digits that satisfy a network's prefix and length and Luhn,
// in one piece or in groups joined by single spaces or dashes. Groups before the
// last have at least three digits, unless the digits are all that is joined.
func cardAt(v []byte, p int) (end, next int) {
	var digits [maxCard]byte
	var ends [maxCard]struct{ end, n int }
	n, found, j := 0, 0, p
	even, whole := true, false // all groups so far have three digits; the chain has ended
walk:
	for {
		group := 0
		for j < len(v) && isDigit(v[j]) {
			if n == maxCard {
				break walk
			}
			digits[n] = v[j] - '0'
			n, group, j = n+1, group+1, j+1
		}
		if n >= minCard && even {
			ends[found].end, ends[found].n = j, n
			found++
		}
		even = even && group >= 3
		if j+1 >= len(v) || v[j] != ' ' && v[j] != '-' || !isDigit(v[j+1]) {
			whole = true
			break
		}
		j++
	}
	if whole && n < minCard {
		return 0, j // what follows in this chain is shorter still
	}
	startsChain := p < 2 || v[p-1] != ' ' && v[p-1] != '-' || !isDigit(v[p-2])
	if whole && startsChain && (found == 0 || ends[found-1].end != j) {
		ends[found].end, ends[found].n = j, n
		found++
	}
	for found--; found >= 0; found-- {
		c := ends[found]
		if isCard(digits[:c.n]) && !inNumberOrDigest(v, p, c.end) {
			return c.end, c.end
		}
	}
	return 0, p + 1
}

func isCard(digits []byte) bool {
	var prefix uint32
	for _, d := range digits[:6] {
		prefix = prefix*10 + uint32(d)
	}
	for i := range networks {
		if n := &networks[i]; prefix <= n.high {
			return prefix >= n.low && n.lengths>>len(digits)&1 == 1 && luhn(digits)
		}
	}
	return false
}

// luhn checks the check digit of ISO/IEC 7812-1, annex B.
func luhn(digits []byte) bool {
	sum, double := 0, false
	for i := len(digits) - 1; i >= 0; i-- {
		d := int(digits[i])
		if double {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		double = !double
	}
	return sum%10 == 0
}

const (
	digestLength = 24 // a longer word of hexadecimal digits is a digest, bytes
	digestReach  = 64 // how far from the digits the word is looked at, bytes
)

// inNumberOrDigest tells digits that are the fraction of a decimal number, or
// part of a hexadecimal digest or UUID.
func inNumberOrDigest(v []byte, p, end int) bool {
	if p >= 2 && v[p-1] == '.' && isDigit(v[p-2]) {
		return true
	}
	left, right := p, end
	for left > 0 && p-left < digestReach && isHex(v[left-1]) {
		left--
	}
	for right < len(v) && right-end < digestReach && isHex(v[right]) {
		right++
	}
	if left == p && right == end ||
		left > 0 && isAlnum(v[left-1]) && p-left < digestReach ||
		right < len(v) && isAlnum(v[right]) && right-end < digestReach {
		return false // not glued to anything, or the word is not hexadecimal
	}
	if right-left >= digestLength {
		return true
	}
	for _, b := range v[p:end] {
		if b == '-' {
			return true
		}
	}
	return false
}
