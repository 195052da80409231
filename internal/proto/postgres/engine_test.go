package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirproxy/weir/internal/policy"
	"github.com/weirproxy/weir/internal/session"
)

// step is one exchange: what one side sends, and what the engine then sends to
// either.
type step struct {
	client, server     string
	toServer, toClient string
}

// conversation is a sequence of steps; outcomes are "status code rows" of the
// allowed actions, in the order in which they ended.
type conversation struct {
	name     string
	masks    []*policy.Mask
	steps    []step
	outcomes []string
	end      string // part of the error that ends it
}

const denied = `E 42501 weir: rule "no secrets" denies this`

var conversations = []conversation{
	{name: "simple query", steps: []step{
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "T a | D 1 | D NULL | C SELECT 2 | Z I", toClient: "T a | D 1 | D NULL | C SELECT 2 | Z I"},
		{client: "X", toServer: "X"},
	}, outcomes: []string{"ok  2"}, end: "EOF"},
	{name: "several statements", steps: []step{
		{client: "Q select 1; update t; select 2", toServer: "Q select 1; update t; select 2"},
		{server: "T a | D 1 | C SELECT 1 | C UPDATE 5 | E 22012 division by zero | Z I", toClient: "T a | D 1 | C SELECT 1 | C UPDATE 5 | E 22012 division by zero | Z I"},
	}, outcomes: []string{"ok  1", "ok  5", "error 22012 0"}},
	{name: "several statements, error in the first", steps: []step{
		{client: "Q select 1; select 2", toServer: "Q select 1; select 2"},
		{server: "E 57014 cancelled | Z I", toClient: "E 57014 cancelled | Z I"},
	}, outcomes: []string{"cancelled 57014 0", "cancelled  0"}},
	{name: "empty query", steps: []step{
		{client: "Q  ", toServer: "Q"},
		{server: "I | Z I", toClient: "I | Z I"},
	}, outcomes: []string{"ok  0"}},
	{name: "denied when idle", steps: []step{
		{client: "Q select * from secret", toClient: denied + " | Z I"},
		{client: "Q select 1; select * from secret", toClient: denied + " | Z I"},
		{client: "Q weird", toClient: `E 42601 weir: syntax error at or near "weird" | Z I`},
	}},
	{name: "denied in a transaction", steps: []step{
		{client: "Q begin", toServer: "Q begin"},
		{server: "C BEGIN | Z T", toClient: "C BEGIN | Z T"},
		{client: "Q select * from secret", toServer: "Q weir: refused"},
		{server: "E 42601 syntax error | Z E", toClient: denied + " | Z E"},
		{client: "Q rollback", toServer: "Q rollback"},
		{server: "C ROLLBACK | Z I", toClient: "C ROLLBACK | Z I"},
		{client: "Q select * from secret", toClient: denied + " | Z I"},
	}, outcomes: []string{"ok  0", "ok  0"}},
	{name: "denied behind an answer that is still owed", steps: []step{
		{client: "Q select 1 | Q select * from secret", toServer: "Q select 1 | Q weir: refused"},
		{server: "C SELECT 0 | Z I | E 42601 syntax error | Z I", toClient: "C SELECT 0 | Z I | " + denied + " | Z I"},
	}, outcomes: []string{"ok  0"}},
	{name: "extended", steps: []step{
		{client: "P s1 select $1 | D S s1 | S", toServer: "P s1 select $1 | D S s1 | S"},
		{server: "1 | t | T a | Z I", toClient: "1 | t | T a | Z I"},
		{client: "B - s1 7 | D P  | E - | S", toServer: "B - s1 7 | D P | E - | S"},
		{server: "2 | T a | D 7 | C SELECT 1 | Z I", toClient: "2 | T a | D 7 | C SELECT 1 | Z I"},
		{client: "C S s1 | S", toServer: "C S s1 | S"},
		{server: "3 | Z I", toClient: "3 | Z I"},
		{client: "B - s1 | E - | S", toServer: "B - s1 | P weir weir: refused | S"},
		{server: "E 26000 no such statement | Z I", toClient: "E 26000 no such statement | Z I"},
	}, outcomes: []string{"ok  1"}},
	{name: "extended, denied at Parse", steps: []step{
		{client: "P - select * from secret | B - - | D P | E - | H", toClient: denied},
		{client: "S", toServer: "S"},
		{server: "Z I", toClient: "Z I"},
	}},
	{name: "extended, denied after something that ran", steps: []step{
		{client: "P - insert into t | B - - | E - | P - select * from secret | B - - | E - | S",
			toServer: "P - insert into t | B - - | E - | P - weir: refused | S"},
		{server: "1 | 2 | C INSERT 0 1 | E 42601 syntax error | Z I", toClient: "1 | 2 | C INSERT 0 1 | " + denied + " | Z I"},
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "C SELECT 0 | Z I", toClient: "C SELECT 0 | Z I"},
	}, outcomes: []string{"ok  1", "ok  0"}},
	{name: "extended, what stands behind an error is skipped", steps: []step{
		{client: "P - select 1 | B - - | E - | P - select 2 | B - - | E - | S | P - select 3 | B - - | E - | S",
			toServer: "P - select 1 | B - - | E - | P - select 2 | B - - | E - | S | P - select 3 | B - - | E - | S"},
		{server: "1 | 2 | E 22012 division by zero | Z I | 1 | 2 | C SELECT 1 | Z I", toClient: "1 | 2 | E 22012 division by zero | Z I | 1 | 2 | C SELECT 1 | Z I"},
	}, outcomes: []string{"error 22012 0", "cancelled  0", "ok  1"}},
	{name: "an error before Sync was sent", steps: []step{
		{client: "P - select 1 | B - - | E - | H", toServer: "P - select 1 | B - - | E - | H"},
		{server: "1 | 2 | E 22012 division by zero", toClient: "1 | 2 | E 22012 division by zero"},
		{client: "P - select 2 | B - - | E - | Q select 3 | S", toServer: "S"},
		{server: "Z I", toClient: "Z I"},
	}, outcomes: []string{"error 22012 0"}},
	{name: "suspended portal", steps: []step{
		{client: "P - select 1 | B - - | E - 2 | H", toServer: "P - select 1 | B - - | E - 2 | H"},
		{server: "1 | 2 | D 1 | D 2 | s", toClient: "1 | 2 | D 1 | D 2 | s"},
		{client: "E - 2 | S", toServer: "E - 2 | S"},
		{server: "D 3 | C SELECT 1 | Z I", toClient: "D 3 | C SELECT 1 | Z I"},
	}, outcomes: []string{"ok  2", "ok  1"}},
	{name: "copy in", steps: []step{
		{client: "Q copy t FROM STDIN", toServer: "Q copy t FROM STDIN"},
		{server: "G", toClient: "G"},
		{client: "d 1 | d 2 | H | S | c", toServer: "d 1 | d 2 | c"},
		{server: "C COPY 2 | Z I", toClient: "C COPY 2 | Z I"},
		{client: "d late | c"},
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "C SELECT 1 | Z I", toClient: "C SELECT 1 | Z I"},
	}, outcomes: []string{"ok  2", "ok  1"}},
	{name: "copy in, extended, with the Sync that the server swallows", steps: []step{
		{client: "P - copy t FROM STDIN | B - - | D P | E - | S | d 1", toServer: "P - copy t FROM STDIN | B - - | D P | E - | S"},
		{server: "1 | 2 | n | G", toClient: "1 | 2 | n | G", toServer: "d 1"},
		{client: "c | S", toServer: "c | S"},
		{server: "C COPY 1 | Z I", toClient: "C COPY 1 | Z I"},
	}, outcomes: []string{"ok  1"}},
	{name: "copy in, extended, that fails at once", steps: []step{
		{client: "P - copy t FROM STDIN | B - - | E - | S", toServer: "P - copy t FROM STDIN | B - - | E - | S"},
		{client: "d 1 | c | S"},
		{server: "1 | 2 | E 42P01 no table | Z I", toClient: "1 | 2 | E 42P01 no table | Z I", toServer: "S"},
		{server: "Z I", toClient: "Z I"},
	}, outcomes: []string{"error 42P01 0"}},
	{name: "copy in, the client gives up", steps: []step{
		{client: "Q copy t FROM STDIN", toServer: "Q copy t FROM STDIN"},
		{server: "G", toClient: "G"},
		{client: "f no more", toServer: "f no more"},
		{server: "E 57014 COPY from stdin failed | Z I", toClient: "E 57014 COPY from stdin failed | Z I"},
	}, outcomes: []string{"cancelled 57014 0"}},
	{name: "a statement in the middle of a copy", steps: []step{
		{client: "Q copy t FROM STDIN", toServer: "Q copy t FROM STDIN"},
		{server: "G", toClient: "G"},
		{client: "Q select 1", toClient: `E FATAL!08P01 weir: the connection is closed: message type 'Q' during COPY`},
	}, end: "during COPY"},
	{name: "copy out", steps: []step{
		{client: "Q copy t to stdout", toServer: "Q copy t to stdout"},
		{server: `H 1 | d 1\n | d 2\n | c | C COPY 2 | Z I`, toClient: `H 1 | d 1\n | d 2\n | c | C COPY 2 | Z I`},
	}, outcomes: []string{"ok  2"}},
	{name: "function call", steps: []step{
		{client: "F 1598 x", toServer: "F 1598"},
		{server: "V 5 | Z I", toClient: "V 5 | Z I"},
		{client: "F 4242 x", toClient: denied + " | Z I"},
	}, outcomes: []string{"ok  1"}},
	{name: "the search path is waited for", steps: []step{
		{client: "P - set search_path = secret | B - - | E - | P - select a from t | S", toServer: "P - set search_path = secret | B - - | E - | H"},
		{server: "1 | 2 | C SET", toClient: "1 | 2 | C SET", toServer: "P - weir: refused | S"},
		{server: "E 42601 syntax error | Z I", toClient: `E 42501 weir: rule "no secrets" denies this | Z I`},
		{client: "Q select a from t", toServer: "Q select a from t"},
		{server: "C SELECT 0 | Z I", toClient: "C SELECT 0 | Z I"},
		{client: "Q set search_path = secret", toServer: "Q set search_path = secret"},
		{server: "C SET | Z I", toClient: "C SET | Z I"},
		{client: "Q select a from t", toClient: `E 42501 weir: rule "no secrets" denies this | Z I`},
	}, outcomes: []string{"ok  0", "ok  0", "ok  0"}},
	{name: "statements of one string see what those before them do", steps: []step{
		{client: "Q set search_path = secret; select a from t", toClient: denied + " | Z I"},
		{client: "Q begin; set local search_path = secret; commit; select a from t", toServer: "Q begin; set local search_path = secret; commit; select a from t"},
		{server: "C BEGIN | C SET | C COMMIT | C SELECT 0 | Z I", toClient: "C BEGIN | C SET | C COMMIT | C SELECT 0 | Z I"},
		{client: "Q prepare p AS select a from secret; execute p", toClient: denied + " | Z I"},
		{client: "Q prepare p AS select a from t; execute p", toServer: "Q prepare p AS select a from t; execute p"},
		{server: "C PREPARE | C SELECT 0 | Z I", toClient: "C PREPARE | C SELECT 0 | Z I"},
	}, outcomes: []string{"ok  0", "ok  0", "ok  0", "ok  0", "ok  0", "ok  0"}},
	{name: "a rollback takes the search path back", steps: []step{
		{client: "Q set search_path = secret", toServer: "Q set search_path = secret"},
		{server: "C SET | Z I", toClient: "C SET | Z I"},
		{client: "Q begin", toServer: "Q begin"},
		{server: "C BEGIN | Z T", toClient: "C BEGIN | Z T"},
		{client: "Q set search_path = a", toServer: "Q set search_path = a"},
		{server: "C SET | Z T", toClient: "C SET | Z T"},
		{client: "Q select a from t", toServer: "Q select a from t"},
		{server: "C SELECT 0 | Z T", toClient: "C SELECT 0 | Z T"},
		{client: "Q rollback", toServer: "Q rollback"},
		{server: "C ROLLBACK | Z I", toClient: "C ROLLBACK | Z I"},
		{client: "Q select a from t", toClient: denied + " | Z I"},
	}, outcomes: []string{"ok  0", "ok  0", "ok  0", "ok  0", "ok  0"}},
	{name: "prepared by SQL", steps: []step{
		{client: "Q prepare p AS select a from shop.orders", toServer: "Q prepare p AS select a from shop.orders"},
		{server: "C PREPARE | Z I", toClient: "C PREPARE | Z I"},
		{client: "Q execute p", toServer: "Q execute p"},
		{server: "C SELECT 0 | Z I", toClient: "C SELECT 0 | Z I"},
		{client: "B - p | E - | S", toServer: "B - p | E - | S"},
		{server: "2 | C SELECT 0 | Z I", toClient: "2 | C SELECT 0 | Z I"},
		{client: "Q execute q", toClient: denied + " (weir cannot read it: unknown prepared statement) | Z I"},
	}, outcomes: []string{"ok  0", "ok  0", "ok  0"}},
	{name: "a name that a failed batch would have changed", steps: []step{
		{client: "P x select a from shop.orders | S", toServer: "P x select a from shop.orders | S"},
		{server: "1 | Z I", toClient: "1 | Z I"},
		// The first batch fails, so x is what it was; what the second batch binds is
		// known only then.
		{client: "P - select 1/0 | B - - | E - | C S x | P x select b from shop.orders | S | B - x | E - | S",
			toServer: "P - select 1/0 | B - - | E - | C S x | P x select b from shop.orders | S"},
		{server: "1 | 2 | E 22012 division by zero | Z I", toClient: "1 | 2 | E 22012 division by zero | Z I", toServer: "B - x | E - | S"},
		{server: "2 | C SELECT 0 | Z I", toClient: "2 | C SELECT 0 | Z I"},
	}, outcomes: []string{"error 22012 0", "ok  0"}},
	{name: "a name in doubt, executed by SQL", steps: []step{
		{client: "P y select a from t | S", toServer: "P y select a from t | S"},
		{server: "1 | Z I", toClient: "1 | Z I"},
		{client: "P - select 1/0 | B - - | E - | C S y | S | Q execute y", toServer: "P - select 1/0 | B - - | E - | C S y | S"},
		{server: "1 | 2 | E 22012 division by zero | Z I", toClient: "1 | 2 | E 22012 division by zero | Z I", toServer: "Q execute y"},
		{server: "C SELECT 0 | Z I", toClient: "C SELECT 0 | Z I"},
	}, outcomes: []string{"error 22012 0", "ok  0"}},
	{name: "settings, notices and notifications pass", steps: []step{
		{server: "S TimeZone UTC | N 00000 hello | A channel payload", toClient: "S TimeZone UTC | N 00000 hello | A channel payload"},
	}},
	{name: "an unsafe encoding", steps: []step{
		{client: "Q set client_encoding = SJIS", toClient: "E 22023 weir: this client_encoding is not accepted: statements in it cannot be read safely; use UTF8 | Z I"},
	}},
	{name: "the server turns to an unsafe encoding", steps: []step{
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "S client_encoding BIG5", toClient: "E FATAL!08P01 weir: the connection is closed: client_encoding became \"BIG5\", in which statements cannot be read safely"},
	}, end: "client_encoding"},
	{name: "the server shuts down", steps: []step{
		{server: "E FATAL!57P01 terminating", toClient: "E FATAL!57P01 terminating"},
	}},
	{name: "a login in the middle", steps: []step{
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "R", toClient: "E FATAL!08P01 weir: the connection is closed: the server sent message type 'R' of 8 bytes, which it may not send here"},
	}, end: "may not send"},
	{name: "CopyBoth", steps: []step{
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "W", toClient: "E FATAL!08P01 weir: the connection is closed: the server sent message type 'W' of 8 bytes, which it may not send here"},
	}, end: "may not send"},
	{name: "a row before its description", steps: []step{
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "D 1", toClient: "E FATAL!08P01 weir: the connection is closed: the server sent a row before its description"},
	}, end: "before its description"},
	{name: "a row of more columns than its description", masks: cards, steps: []step{
		{client: "Q select card from shop.payments", toServer: "Q select card from shop.payments"},
		{server: "T card:20001:2 | D 4111,4111", toClient: "T card | E FATAL!08P01 weir: the connection is closed: a row that does not fit its description: malformed message"},
	}, end: "does not fit"},
	{name: "an answer too many", steps: []step{
		{client: "Q select 1", toServer: "Q select 1"},
		{server: "C SELECT 1 | C SELECT 1", toClient: "C SELECT 1 | E FATAL!08P01 weir: the connection is closed: the server sent message type 'C', which it may not send here"},
	}, outcomes: []string{"ok  1"}, end: "may not send"},
	{name: "a refused text that the server takes", steps: []step{
		{client: "Q begin", toServer: "Q begin"},
		{server: "C BEGIN | Z T", toClient: "C BEGIN | Z T"},
		{client: "Q drop table t", toServer: "Q weir: refused"},
		{server: "C DROP TABLE", toClient: "E FATAL!08P01 weir: the connection is closed: the server sent message type 'C', which it may not send here"},
	}, outcomes: []string{"ok  0"}, end: "may not send"},
	{name: "an error that nobody asked for", steps: []step{
		{server: "E 22012 division", toClient: "E FATAL!08P01 weir: the connection is closed: the server sent message type 'E', which it may not send here"},
	}, end: "may not send"},
	{name: "masked by origin", masks: cards, steps: []step{
		{client: "Q select id, card from shop.payments", toServer: "Q select id, card from shop.payments"},
		{server: "T id:20001:1:23,card:20001:2 | D 1,4111 1111 1111 1111 | D 2,NULL | D 3,378282246310005 | C SELECT 3 | Z I",
			toClient: "T id,card | D 1,**** **** **** 1111 | D 2,NULL | D 3,***********0005 | C SELECT 3 | Z I"},
		{client: "P - select card from shop.part | B - - | E - | S", toServer: "P - select card from shop.part | B - - | D P | E - | S"},
		{server: "1 | 2 | T card:20002:3 | D 4111111111111111 | C SELECT 1 | Z I", toClient: "1 | 2 | D ************1111 | C SELECT 1 | Z I"},
	}, outcomes: []string{"ok  3 shop.payments.card/last4/origin/2", "ok  1 shop.part.card/last4/origin/1"}},
	{name: "masked where the origin is not known", masks: cards, steps: []step{
		{client: "Q select upper(card), id from shop.payments", toServer: "Q select upper(card), id from shop.payments"},
		{server: "T upper:0:0,id:20001:1:23 | D 4111,1 | C SELECT 1 | Z I", toClient: "T upper,id | D [masked],1 | C SELECT 1 | Z I"},
		{client: "Q select count(id) from shop.payments", toServer: "Q select count(id) from shop.payments"},
		{server: "T count:0:0:20 | D 12 | C SELECT 1 | Z I", toClient: "T count | D 12 | C SELECT 1 | Z I"},
		{client: "Q select a from shop.v", toServer: "Q select a from shop.v"},
		{server: "T a:20003:1 | D 4111 | C SELECT 1 | Z I", toClient: "T a | D [masked] | C SELECT 1 | Z I"},
		{client: "Q select x from shop.unheard", toServer: "Q select x from shop.unheard"},
		{server: "T x:29999:1 | D 4111 | C SELECT 1 | Z I", toClient: "T x | D [masked] | C SELECT 1 | Z I"},
		{client: "Q select item from shop.orders", toServer: "Q select item from shop.orders"},
		{server: "T item:20004:2,n:0:0:23 | D lamp,1 | C SELECT 1 | Z I", toClient: "T item,n | D lamp,1 | C SELECT 1 | Z I"},
	}, outcomes: []string{"ok  1 shop.payments.card/redact/lineage/1", "ok  1", "ok  1 shop.payments.card/redact/lineage/1", "ok  1 x/redact/unresolved/1", "ok  1"}},
	{name: "masked by detectors", masks: detect, steps: []step{
		{client: "Q select note from t", toServer: "Q select note from t"},
		{server: "T note:0:0,n:0:0:23 | D pay 4111 1111 1111 1111 now,5 | D nothing,6 | C SELECT 2 | Z I",
			toClient: "T note,n | D pay **** **** **** 1111 now,5 | D nothing,6 | C SELECT 2 | Z I"},
		{client: "Q select note from t", toServer: "Q select note from t"},
		{server: "E 22P02 invalid input: 4111111111111111~detail 4111111111111111 | Z I", toClient: "E 22P02 invalid input: ************1111~detail ************1111 | Z I"},
		{server: "A c card 4111111111111111", toClient: "A c card ************1111"},
	}, outcomes: []string{"ok  2 note/last4/detector/1", "error 22P02 0 message/last4/detector/2"}},
	{name: "errors about masked columns", masks: cards, steps: []step{
		{client: "Q insert into shop.payments values (1)", toServer: "Q insert into shop.payments values (1)"},
		{server: `E 23505 duplicate key violates constraint "c"~Key (card)=(4111) exists.~hint 4111~where 4111 | Z I`,
			toClient: `E 23505 weir: the server's message is withheld because it may quote a masked value (23505 unique_violation) | Z I`},
		{client: "Q select id from shop.orders", toServer: "Q select id from shop.orders"},
		{server: `N 01000 value "7"~detail | C SELECT 0 | Z I`, toClient: `N 01000 value "7"~detail | C SELECT 0 | Z I`},
	}, outcomes: []string{"error 23505 0", "ok  0"}},
	{name: "copy out masked", masks: cards, steps: []step{
		{client: "Q copy shop.payments to stdout", toServer: "Q copy shop.payments to stdout"},
		{server: `H 3 | d 1\t4111 1111 1111 1111\tx\n | d 2\t\N\ty\n | c | C COPY 2 | Z I`,
			toClient: `H 3 | d 1\t**** **** **** 1111\tx\n | d 2\t\N\ty\n | c | C COPY 2 | Z I`},
		{client: "Q copy (select card from shop.payments) to stdout", toServer: "Q copy (select card from shop.payments) to stdout"},
		{server: `H 1 | d 4111\n | c | C COPY 1 | Z I`, toClient: `H 1 | d [masked]\n | c | C COPY 1 | Z I`},
		{client: "Q copy (select * from shop.payments) to stdout", toServer: "Q copy (select * from shop.payments) to stdout"},
		{server: `H 1 | d 4111\n | c | C COPY 1 | Z I`, toClient: `H 1 | d [masked]\n | c | C COPY 1 | Z I`},
	}, outcomes: []string{"ok  2 shop.payments.card/last4/lineage/1", "ok  1 shop.payments.card/redact/lineage/1", "ok  1 shop.payments.card/redact/lineage/1"}},
	{name: "a function's answer where columns are masked", masks: cards, steps: []step{
		{client: "F 20010 x", toServer: "F 20010"},
		{server: "V 4111 | Z I", toClient: "V NULL | Z I"},
		{client: "F 1598 x", toServer: "F 1598"},
		{server: "V 4111 | Z I", toClient: "V 4111 | Z I"},
	}, outcomes: []string{"ok  1 function call/null/unresolved/1", "ok  1"}},
}

var (
	cards  = []*policy.Mask{{Name: "cards", Columns: globs("shop.payments.card"), With: policy.MaskLast4}}
	detect = []*policy.Mask{{Name: "detect", Detect: []string{"payment_card"}, With: policy.MaskLast4}}
)

func globs(s ...string) []policy.Glob {
	out := make([]policy.Glob, len(s))
	for i := range s {
		g, err := policy.NewGlob(s[i])
		if err != nil {
			panic(err)
		}
		out[i] = g
	}
	return out
}

// play runs a conversation; cut splits what arrives in the step with that index at
// that byte. It returns what each step made the engine send, the outcomes and the
// end.
func play(t testing.TB, c *conversation, cutStep, cutAt int) (got []step, outcomes []string, err error) {
	w := fakeWorld(t)
	w.masks = c.masks
	withGate(t, w, func(g *session.Gate, grant session.Grant) {
		d := testEngine(t, w, g, grant)
		for i, s := range c.steps {
			feed, b := d.client, []byte(nil)
			if s.client != "" {
				b = clientBytes(s.client)
			} else {
				feed, b = d.server, serverBytes(s.server)
			}
			if i == cutStep {
				feed(b[:cutAt])
				feed(b[cutAt:])
			} else {
				feed(b)
			}
			got = append(got, step{s.client, s.server, clientScript(d.toServer), serverScript(d.toClient)})
			d.toServer, d.toClient = nil, nil
		}
		for _, o := range d.outcomes {
			line := fmt.Sprintf("%s %s %d", o.Status, o.Code, o.Rows)
			for _, m := range o.Masks {
				line += fmt.Sprintf(" %s/%s/%s/%d", m.Column, m.Method, m.Source, m.Count)
			}
			outcomes = append(outcomes, line)
		}
		err = d.err
	})
	return got, outcomes, err
}

func TestConversations(t *testing.T) {
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			got, outcomes, err := play(t, &c, -1, 0)
			if diff := cmp.Diff(c.steps, got, cmp.AllowUnexported(step{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(c.outcomes, outcomes); diff != "" {
				t.Errorf("outcomes -want +got\n%s", diff)
			}
			if (err == nil) != (c.end == "") || err != nil && !strings.Contains(err.Error(), c.end) {
				t.Errorf("ended with %v, want %q", err, c.end)
			}
		})
	}
}

// TestConversationsCut replays every conversation with every step cut at every
// byte: nothing may depend on how the bytes arrive.
func TestConversationsCut(t *testing.T) {
	for _, c := range conversations {
		want, wantOutcomes, _ := play(t, &c, -1, 0)
		for i, s := range c.steps {
			n := len(serverBytesOf(s))
			for at := 1; at < n; at++ {
				got, outcomes, _ := play(t, &c, i, at)
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
					t.Fatalf("%s: step %d cut at %d: -want +got\n%s", c.name, i, at, diff)
				}
				if diff := cmp.Diff(wantOutcomes, outcomes); diff != "" {
					t.Fatalf("%s: step %d cut at %d: outcomes -want +got\n%s", c.name, i, at, diff)
				}
			}
		}
	}
}

func serverBytesOf(s step) []byte {
	if s.client != "" {
		return clientBytes(s.client)
	}
	return serverBytes(s.server)
}
