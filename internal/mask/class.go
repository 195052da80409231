package mask

// Class says what a value of a type can carry and how it looks on the wire. It is
// one of the constants below or made of one by ArrayOf and RangeOf.
type Class uint8

// Classes; the zero value is the one about which nothing is known.
const (
	Unknown Class = iota
	Opaque        // nothing that a detector knows fits into it
	Text
	Char
	JSON
	JSONB
	XML
	Record
	Int4
	Int8
	Float // float4, float8
	Numeric
	Money
	Inet // inet, cidr
	MACAddr
	Bytes
	TSVector
)

// Bits of a Class that hold the class of elements or bounds in the others.
const (
	arrayBit      Class = 0x80
	rangeBit      Class = 0x40
	multirangeBit Class = 0x20
)

// TextArray is the class of arrays of text.
const TextArray = arrayBit | Text

// ArrayOf is the class of arrays whose elements have class c.
func ArrayOf(c Class) Class {
	switch {
	case c&arrayBit != 0: // PostgreSQL has no arrays of arrays
		return Unknown
	case c == Opaque:
		return Opaque
	}
	return c | arrayBit
}

// RangeOf is the class of ranges, or multiranges, whose bounds have class c.
func RangeOf(c Class, multi bool) Class {
	switch {
	case c&(arrayBit|rangeBit|multirangeBit) != 0:
		c = Unknown
	case c == Opaque:
		return Opaque
	}
	if multi {
		return c | multirangeBit
	}
	return c | rangeBit
}

// Type OIDs of PostgreSQL (pg_type.dat) that are named elsewhere. They never change.
const (
	oidChar   = 18
	oidJSON   = 114
	oidXML    = 142
	oidRecord = 2249
	oidJSONB  = 3802
)

// firstUserOID is FirstNormalObjectId (transam.h): below it OIDs are assigned in
// the source.
const firstUserOID = 16384

// builtInType is a built-in type and the types made of it; 0 where there is none.
type builtInType struct{ oid, array, rng, multirange uint32 }

// builtInTypes lists the built-in types by class. What is missing is Unknown.
var builtInTypes = map[Class][]builtInType{
	// text varchar bpchar name unknown cstring refcursor
	Text:   {{25, 1009, 0, 0}, {1043, 1015, 0, 0}, {1042, 1014, 0, 0}, {19, 1003, 0, 0}, {705, 0, 0, 0}, {2275, 1263, 0, 0}, {1790, 2201, 0, 0}},
	Char:   {{oidChar, 1002, 0, 0}},
	JSON:   {{oidJSON, 199, 0, 0}},
	JSONB:  {{oidJSONB, 3807, 0, 0}},
	XML:    {{oidXML, 143, 0, 0}},
	Record: {{oidRecord, 2287, 0, 0}},
	Int4:   {{23, 1007, 3904, 4451}},
	Int8:   {{20, 1016, 3926, 4536}},
	// float4 float8
	Float:   {{700, 1021, 0, 0}, {701, 1022, 0, 0}},
	Numeric: {{1700, 1231, 3906, 4532}},
	Money:   {{790, 791, 0, 0}},
	// inet cidr
	Inet: {{869, 1041, 0, 0}, {650, 651, 0, 0}},
	// macaddr macaddr8
	MACAddr:  {{829, 1040, 0, 0}, {774, 775, 0, 0}},
	Bytes:    {{17, 1001, 0, 0}},
	TSVector: {{3614, 3643, 0, 0}},
	Opaque: {
		// bool int2 int2vector regproc oid tid xid cid oidvector
		{16, 1000, 0, 0}, {21, 1005, 0, 0}, {22, 1006, 0, 0}, {24, 1008, 0, 0}, {26, 1028, 0, 0}, {27, 1010, 0, 0}, {28, 1011, 0, 0}, {29, 1012, 0, 0}, {30, 1013, 0, 0},
		// point lseg path box polygon line circle
		{600, 1017, 0, 0}, {601, 1018, 0, 0}, {602, 1019, 0, 0}, {603, 1020, 0, 0}, {604, 1027, 0, 0}, {628, 629, 0, 0}, {718, 719, 0, 0},
		// date time timestamp timestamptz interval timetz
		{1082, 1182, 3912, 4535}, {1083, 1183, 0, 0}, {1114, 1115, 3908, 4533}, {1184, 1185, 3910, 4534}, {1186, 1187, 0, 0}, {1266, 1270, 0, 0},
		{1560, 1561, 0, 0}, {1562, 1563, 0, 0}, {2950, 2951, 0, 0}, // bit varbit uuid
		// reg*
		{2202, 2207, 0, 0}, {2203, 2208, 0, 0}, {2204, 2209, 0, 0}, {2205, 2210, 0, 0}, {2206, 2211, 0, 0}, {3734, 3735, 0, 0}, {3769, 3770, 0, 0}, {4089, 4090, 0, 0}, {4096, 4097, 0, 0}, {4191, 4192, 0, 0},
		// void txid_snapshot pg_lsn pg_snapshot xid8
		{2278, 0, 0, 0}, {2970, 2949, 0, 0}, {3220, 3221, 0, 0}, {5038, 5039, 0, 0}, {5069, 271, 0, 0},
	},
}

// builtIn maps the OIDs of built-in types, their arrays and ranges to classes.
var builtIn = func() map[uint32]Class {
	m := make(map[uint32]Class)
	for class, types := range builtInTypes {
		for _, t := range types {
			m[t.oid], m[t.array] = class, ArrayOf(class)
			m[t.rng], m[t.multirange] = RangeOf(class, false), RangeOf(class, true)
		}
	}
	for of, array := range rangeArrays {
		m[array] = ArrayOf(m[of])
	}
	delete(m, 0)
	return m
}()

// rangeArrays maps the built-in range and multirange types to their arrays.
var rangeArrays = map[uint32]uint32{
	3904: 3905, 3906: 3907, 3908: 3909, 3910: 3911, 3912: 3913, 3926: 3927,
	4451: 6150, 4532: 6151, 4533: 6152, 4534: 6153, 4535: 6155, 4536: 6157,
}

// ClassOf is the class of a built-in type. RowDescription reports domains by
// their base type. For types of users and extensions ask the catalogue and use
// UserClass.
func ClassOf(oid uint32) Class { return builtIn[oid] }

// BuiltIn reports whether a type's OID is assigned in PostgreSQL's source, so
// that ClassOf knows it.
func BuiltIn(oid uint32) bool { return oid < firstUserOID }

// UserClass is the class of a user's or extension's type: typtype is that of
// pg_type, textWire says that it is sent as text in both formats (citext), and
// textElements that it is an array of such a type or of a built-in text type. Of
// other arrays use ArrayOf with the element's class.
func UserClass(typtype byte, textWire, textElements bool) Class {
	switch {
	case textWire:
		return Text
	case textElements:
		return TextArray
	case typtype == 'c':
		return Record
	case typtype == 'r', typtype == 'm':
		return RangeOf(Unknown, typtype == 'm')
	case typtype == 'e':
		return Opaque
	}
	return Unknown
}
