package anchor

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/weirproxy/weir/pkg/auditlog"
)

// Witness is somebody who cosigns heads that continue those it has seen.
type Witness struct {
	URL string // the prefix of add-checkpoint
	Key auditlog.WitnessKey
}

// ErrForked says that a witness has seen another history of this log.
var ErrForked = errors.New("it has seen another log under this name: this one was cut, put back, or is a copy that went its own way")

// cosign shows the head to the witness and returns the line with its signature.
func (w Witness) cosign(ctx context.Context, tiles *auditlog.Tiles, seen map[string]uint64) (string, error) {
	head := tiles.Head()
	old := seen[w.URL]
	for try := 0; ; try++ {
		if old > head.Size {
			return "", ErrForked
		}
		proof, err := tiles.Consistency(old, head.Size)
		if err != nil {
			return "", err
		}
		status, answer, err := w.add(ctx, old, proof, head.Note)
		if err != nil {
			return "", err
		}
		switch status {
		case http.StatusOK:
			line, err := w.check(head, answer)
			if err == nil {
				seen[w.URL] = head.Size
			}
			return line, err
		case http.StatusConflict: // with the size that it knows
			size, err := strconv.ParseUint(strings.TrimSuffix(string(answer), "\n"), 10, 63)
			if err != nil || try > 0 {
				return "", errors.New("it does not say which head it has seen")
			}
			if size == old {
				return "", ErrForked // the same size, another root
			}
			old = size
		case http.StatusNotFound:
			return "", errors.New("it does not know this log; give its operator the log's public key (`weir trust bundle --log`)")
		case http.StatusForbidden:
			return "", errors.New("it does not take this log's signature; give its operator the log's public key (`weir trust bundle --log`)")
		case http.StatusUnprocessableEntity:
			return "", ErrForked
		default:
			return "", fmt.Errorf("it answers with status %d", status)
		}
	}
}

// add is a request of add-checkpoint.
func (w Witness) add(ctx context.Context, old uint64, proof []auditlog.Hash, note []byte) (int, []byte, error) {
	body := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		body = fmt.Appendf(body, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	body = append(append(body, '\n'), note...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(w.URL, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := client().Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, answer, err
}

// check takes the witness's own line from its answer.
func (w Witness) check(head auditlog.TreeHead, answer []byte) (string, error) {
	for line := range strings.Lines(string(answer)) {
		if !strings.HasPrefix(line, "— "+w.Key.Name+" ") || !strings.HasSuffix(line, "\n") {
			continue
		}
		signed := head
		signed.Note = append(bytes.Clone(head.Note), line...)
		if _, ok := signed.Cosigned(w.Key); ok {
			return line, nil
		}
	}
	return "", errors.New("its answer has no signature of the key that is configured")
}
