// Package mask turns values into what the reader may see: whole columns by their
// origin, and parts of text by detectors that know payment cards, IBANs, e-mail
// addresses and the like by their shape and checksum.
//
// It is pure: values and obligations in, masked values out. It never opens, logs
// or keeps a value, and it never lets one through because it could not read it:
// what it does not understand becomes NULL or an error.
//
// A masked value stays valid for the driver that decodes it. What a method gives
// for a column depends on the column's type (Class) and wire format:
//
//	class                         redact        last4, email      hash, token    null
//	Text (text, varchar, bpchar,  [masked]      masked text       text           NULL
//	  name, citext, unknown, ...)
//	Char ("char", one byte)       *             *                 NULL           NULL
//	JSON, JSONB                   "[masked]"    a JSON string ¹   a JSON string  NULL
//	XML                           [masked]      [masked]          text           NULL
//	all others                    NULL          NULL              NULL           NULL
//
// ¹ of a JSON string or number; any other JSON value gives "[masked]".
//
// Text in binary format is the same bytes as in text format; binary jsonb has a
// version byte in front, which is kept. Lengths such as varchar(20) are not
// enforced on the wire. NULL stays NULL, but for columns with HideNulls.
//
// Detectors look into these, in both formats, and do this with what they find:
//
//	Text                          replaced in place, the rest stays
//	XML                           the same; character references and the five named
//	                              entities are decoded for the search
//	JSON, JSONB                   a string in place, its escapes undone for the
//	                              search; a number becomes a JSON string
//	Int8, Numeric, Float, Money   NULL (payment_card and patterns of the user: no
//	                              other finding is a number; float4 keeps 7 digits)
//	Int4, MACAddr                 NULL (patterns of the user)
//	Inet (inet, cidr)             NULL (ip and patterns of the user)
//	Bytes (bytea), TSVector       NULL (the bytes, the words, as text)
//	ranges, multiranges           NULL (a masked bound might be above the other)
//	arrays                        each element by its class
//	Record, binary                each field by its type
//	Record, text                  in place where a field is nothing but text, else
//	                              the field NULL: its type is not known
//	Unknown (hstore, ltree, ...)  NULL; binary ones are also read as the numbers,
//	                              arrays, records and hstore that they may be
//
// A detector with method Null makes the whole of a text, XML or JSON NULL, and the
// element of an array or record. Opaque types (bool, int2, oid, dates, times,
// geometry, bits, uuid, enums) cannot hold what is looked for and are not searched.
//
// What detectors find and what not, with figures: docs/DETECTORS.md.
package mask
