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
//	Opaque (numbers, dates,       NULL          NULL              NULL           NULL
//	  uuid, bytea, inet, enums)
//	TextArray, Record, Unknown    NULL          NULL              NULL           NULL
//
// ¹ of a JSON string or number; any other JSON value gives "[masked]".
//
// Text in binary format is the same bytes as in text format; binary jsonb has a
// version byte in front, which is kept. Lengths such as varchar(20) are not
// enforced on the wire.
//
// Detectors look at Text, XML, JSON and JSONB (strings with their escapes undone,
// and numbers), TextArray and Record (element by element, text and binary), and
// Unknown. They replace what they find in place, the rest of the value stays; a
// JSON number that is found becomes a JSON string; an Unknown value in which
// something is found becomes NULL. Opaque values and Char are not searched.
package mask
