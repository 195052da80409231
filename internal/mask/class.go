package mask

// Class says what a value of a type can carry and how it looks on the wire.
type Class uint8

// Classes; the zero value is the one about which nothing is known.
const (
	Unknown Class = iota
	Opaque
	Text
	Char
	JSON
	JSONB
	XML
	TextArray
	Record
)

// Type OIDs of PostgreSQL (pg_type.dat). They never change.
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

// builtin holds the classes of built-in types; what is missing is Unknown.
var builtin = map[uint32]Class{
	25: Text, 1043: Text, 1042: Text, 19: Text, // text varchar bpchar name
	705: Text, 2275: Text, 1790: Text, // unknown cstring refcursor
	oidChar: Char, oidJSON: JSON, oidJSONB: JSONB, oidXML: XML, oidRecord: Record,
	1009: TextArray, 1015: TextArray, 1014: TextArray, 1003: TextArray, 1263: TextArray, 2201: TextArray,
}

// opaque lists the built-in types whose values have a form that masked text does
// not fit.
var opaque = []uint32{
	16, 17, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, // bool bytea int8 int2 int2vector int4 regproc oid tid xid cid oidvector
	600, 601, 602, 603, 604, 628, 718, // point lseg path box polygon line circle
	650, 869, 774, 829, 700, 701, 790, 1700, // cidr inet macaddr8 macaddr float4 float8 money numeric
	1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 2950, // date time timestamp timestamptz interval timetz bit varbit uuid
	2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, // reg*
	2278, 2970, 3220, 5038, 5069, // void txid_snapshot pg_lsn pg_snapshot xid8
	3904, 3906, 3908, 3910, 3912, 3926, 4451, 4532, 4533, 4534, 4535, 4536, // ranges, multiranges
	1000, 1001, 1005, 1006, 1007, 1008, 1010, 1011, 1012, 1013, 1016, 1017, 1018, 1019, 1020, 1021, 1022, 1027, 1028, 1040, 1041,
	629, 651, 719, 775, 791, 1115, 1182, 1183, 1185, 1187, 1231, 1270, 1561, 1563, 2949, 2951, 3221, 5039, // arrays of them
	3905, 3907, 3909, 3911, 3913, 3927, 6150, 6151, 6152, 6153, 6155, 6157,
	2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192, 271,
}

// opaqueSet indexes opaque.
var opaqueSet = func() map[uint32]bool {
	m := make(map[uint32]bool, len(opaque))
	for _, oid := range opaque {
		m[oid] = true
	}
	return m
}()

// ClassOf is the class of a built-in type. RowDescription reports domains by
// their base type. For types of users and extensions ask the catalogue and use
// UserClass.
func ClassOf(oid uint32) Class {
	if opaqueSet[oid] {
		return Opaque
	}
	return builtin[oid]
}

// BuiltIn reports whether a type's OID is assigned in PostgreSQL's source, so
// that ClassOf knows it.
func BuiltIn(oid uint32) bool { return oid < firstUserOID }

// UserClass is the class of a user's or extension's type: typtype is that of
// pg_type, textWire says that it is sent as text in both formats (citext), and
// textElements that it is an array of such a type or of a built-in text type.
func UserClass(typtype byte, textWire, textElements bool) Class {
	switch {
	case textWire:
		return Text
	case textElements:
		return TextArray
	case typtype == 'c':
		return Record
	case typtype == 'e', typtype == 'r', typtype == 'm':
		return Opaque
	}
	return Unknown
}
