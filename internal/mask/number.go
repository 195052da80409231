package mask

import (
	"encoding/binary"
	"math"
	"strconv"
)

// number searches a number, as it is in both formats. IsNull means that something
// is in it or that it could not be read: nothing but NULL stands for a number.
//
// A card needs twelve digits before the point, which a few instructions tell; only
// then, or with patterns of the user, the number is written out and searched.
func (s *search) number(v []byte, class Class, wire bool) Result {
	few := len(s.set.patterns) == 0 // digits that few are nobody's
	if !wire {
		switch {
		case few && len(v) < minCard:
			return Unchanged
		case class == Float:
			return s.expand(v)
		case class == Money:
			return s.money(v)
		}
		return s.find(v)
	}
	if !isNumber(v, class) {
		return IsNull
	}
	if few && !longNumber(v, class) {
		return Unchanged
	}
	text, r := s.take(), Unchanged
	switch class {
	case Int4:
		text = strconv.AppendInt(text, int64(int32(binary.BigEndian.Uint32(v))), 10)
		r = s.find(text)
	case Int8:
		text = strconv.AppendInt(text, int64(binary.BigEndian.Uint64(v)), 10)
		r = s.find(text)
	case Money:
		text = strconv.AppendInt(text, int64(binary.BigEndian.Uint64(v)), 10)
		r = s.money(text)
	case Float:
		text = appendFloat(text, v)
		r = s.expand(text)
	case Numeric:
		text = appendNumeric(text, v)
		r = s.find(text)
	}
	s.give(text)
	return r
}

// isNumber reports whether bytes have the form of a number of the class.
func isNumber(v []byte, class Class) bool {
	switch class {
	case Int4:
		return len(v) == 4
	case Float:
		return len(v) == 4 || len(v) == 8
	case Numeric:
		return isNumeric(v)
	}
	return len(v) == 8
}

// longNumber reports whether a number may have as many digits before the point as a
// card.
func longNumber(v []byte, class Class) bool {
	switch class {
	case Int4:
		return false
	case Float:
		if len(v) == 4 {
			return false // it keeps seven digits or so
		}
		f := math.Abs(math.Float64frombits(binary.BigEndian.Uint64(v)))
		return f >= smallestCard && f < 1e20
	case Numeric:
		weight := int(int16(binary.BigEndian.Uint16(v[2:])))
		return binary.BigEndian.Uint16(v) > 0 && 4*(weight+1) >= minCard
	}
	n := int64(binary.BigEndian.Uint64(v))
	return n >= smallestCard || n <= -smallestCard
}

// smallestCard is the least number with as many digits as a card.
const smallestCard = 1e11

// money searches the digits of an amount with and without the last two, the cents
// of most currencies. In text they stand between signs and separators of any
// country.
func (s *search) money(v []byte) Result {
	r := Unchanged
	if len(s.set.patterns) > 0 {
		r = s.find(v)
	}
	digits := s.take()
	for _, b := range v {
		if isDigit(b) {
			digits = append(digits, b)
		}
	}
	if n := len(digits); r == Unchanged && n >= minCard {
		if r = s.find(digits); r == Unchanged {
			r = s.find(digits[:n-2])
		}
	}
	s.give(digits)
	return r
}

// expand searches a number as it is, and written without an exponent: a card that
// was stored as a double precision is shown as 4.111111111111111e+15. Of fewer
// significant digits than a card has, the rest is made up by the exponent and not
// taken for one.
func (s *search) expand(v []byte) Result {
	if r := s.find(v); r != Unchanged || s.set.card < 0 {
		return r
	}
	text := s.take()
	text = appendPlain(text, v)
	r := Unchanged
	if len(text) >= minCard {
		r = s.find(text)
	}
	s.give(text)
	return r
}

// appendPlain appends the digits before the point of a number with an exponent;
// nothing for a number without one or one that cannot hold a card.
func appendPlain(dst, v []byte) []byte {
	i := 0
	if i < len(v) && (v[i] == '-' || v[i] == '+') {
		i++
	}
	begin, mantissa, before := len(dst), 0, -1
	for ; i < len(v) && (isDigit(v[i]) || v[i] == '.' && before < 0); i++ {
		if v[i] == '.' {
			before = mantissa
			continue
		}
		dst = append(dst, v[i])
		mantissa++
	}
	if before < 0 {
		before = mantissa
	}
	if mantissa < minCard || i >= len(v) || v[i]|0x20 != 'e' {
		return dst[:begin]
	}
	exp, err := strconv.Atoi(string(v[i+1:]))
	if err != nil || exp > maxCard || exp < -len(v) {
		return dst[:begin]
	}
	whole := before + exp
	if whole < minCard || whole > 2*maxCard {
		return dst[:begin]
	}
	for mantissa < whole {
		dst = append(dst, '0')
		mantissa++
	}
	return dst[:begin+whole]
}

// appendFloat writes a binary float4 or float8 as the server does with the default
// extra_float_digits: the shortest form that reads back the same, with an exponent
// from 10^15 on (10^6 for float4) and below 10^-4.
func appendFloat(dst, v []byte) []byte {
	f, bits, limit := 0.0, 64, 1e15
	if len(v) == 4 {
		f, bits, limit = float64(math.Float32frombits(binary.BigEndian.Uint32(v))), 32, 1e6
	} else {
		f = math.Float64frombits(binary.BigEndian.Uint64(v))
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= limit) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, bits)
}

// The binary form of numeric (PostgreSQL source, numeric_send): the number of
// digits of base 10,000, the power of the first, the sign, the number of decimals
// shown, then the digits, two bytes each.
const (
	numericHead     = 8
	numericNegative = 0x4000
	numericSpecial  = 0xc000 // NaN and the infinities have these bits
	numericBase     = 10000
)

// isNumeric reports whether bytes have the form of a numeric.
func isNumeric(v []byte) bool {
	if len(v) < numericHead {
		return false
	}
	n, sign := int(binary.BigEndian.Uint16(v)), binary.BigEndian.Uint16(v[4:])
	if len(v) != numericHead+2*n || sign != 0 && sign != numericNegative && (sign&numericSpecial != numericSpecial || n > 0) || binary.BigEndian.Uint16(v[6:]) > 0x3fff {
		return false
	}
	for at := numericHead; at < len(v); at += 2 {
		if binary.BigEndian.Uint16(v[at:]) >= numericBase {
			return false
		}
	}
	return true
}

// appendNumeric writes a numeric as text.
func appendNumeric(dst, v []byte) []byte {
	n, weight := int(binary.BigEndian.Uint16(v)), int(int16(binary.BigEndian.Uint16(v[2:])))
	sign, scale := binary.BigEndian.Uint16(v[4:]), int(binary.BigEndian.Uint16(v[6:]))
	if sign&numericSpecial == numericSpecial {
		return dst
	}
	if sign == numericNegative {
		dst = append(dst, '-')
	}
	group := func(i int) int {
		if i < 0 || i >= n {
			return 0
		}
		return int(binary.BigEndian.Uint16(v[numericHead+2*i:]))
	}
	if weight < 0 {
		dst = append(dst, '0')
	}
	for i := 0; i <= weight; i++ {
		dst = appendGroup(dst, group(i), i == 0)
	}
	if scale == 0 {
		return dst
	}
	dst = append(dst, '.')
	begin := len(dst)
	for i := weight + 1; len(dst)-begin < scale; i++ {
		dst = appendGroup(dst, group(i), false)
	}
	return dst[:begin+scale]
}

// appendGroup writes a digit of base 10,000: four decimal ones, or without the
// leading zeros.
func appendGroup(dst []byte, d int, first bool) []byte {
	if first {
		return strconv.AppendInt(dst, int64(d), 10)
	}
	return append(dst, byte('0'+d/1000), byte('0'+d/100%10), byte('0'+d/10%10), byte('0'+d%10))
}
