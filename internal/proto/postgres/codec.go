package postgres

import (
	"fmt"

	"github.com/jackc/pgproto3/v2"
)

// decodeClient decodes a validated body of the client. m is the pgproto3 message of
// the type.
func decodeClient(kind byte, body []byte, m pgproto3.FrontendMessage) error {
	if !validateClient(kind, body) {
		return fmt.Errorf("message type %q: %w", kind, errMalformed)
	}
	return decode(m, body)
}

// decodeServer decodes a validated body of the server.
func decodeServer(kind byte, body []byte, m pgproto3.BackendMessage) error {
	if !validateServer(kind, body) {
		return fmt.Errorf("message type %q: %w", kind, errMalformed)
	}
	return decode(m, body)
}

// decode is the second line of defence: a panic of v2 that the validators did not
// foresee ends this one flow.
func decode(m pgproto3.Message, body []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decoding %T: %w", m, errMalformed)
		}
	}()
	if err := m.Decode(body); err != nil {
		return fmt.Errorf("decoding %T: %w", m, errMalformed)
	}
	return nil
}
