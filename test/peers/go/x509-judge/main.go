// Command x509-judge says whether a server written in Go would accept a client certificate. It reads one JSON
// request from each line of its input and writes one JSON verdict for each to its output, in the same order.
//
// A request is judged as crypto/tls judges a client: every certificate that is sent must parse, the leaf must verify
// for the asked usage under the roots at the asked time, and the key must belong to the leaf.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

type request struct {
	ID int64 `json:"id"`
	// PEM, leaf first, as the client sends it.
	Chain string `json:"chain"`
	// PEM. What does not parse is skipped, as CertPool.AppendCertsFromPEM does.
	Roots string `json:"roots"`
	// PEM, optional: it must be the key of the leaf.
	Key string `json:"key,omitempty"`
	// Epoch milliseconds; absent means now.
	At *int64 `json:"at,omitempty"`
	// Extended key usages, one of which must be allowed: client, server, any. Default client.
	Usages []string `json:"usages,omitempty"`
	// The one URI name that the leaf must have.
	URI string `json:"uri,omitempty"`
	// A DNS name for which the leaf must be valid.
	DNS string `json:"dns,omitempty"`
	// Also completes a TLS 1.3 handshake, which needs the key.
	Handshake bool `json:"handshake,omitempty"`
	// PEM. Each certificate up to the root must have a CRL of its issuer here that does not name it.
	CRLs string `json:"crls,omitempty"`
}

type verdict struct {
	ID int64 `json:"id"`
	OK bool  `json:"ok"`
	// Where the request failed: request, parse, key, verify, crl, revoked, name or handshake.
	Stage string `json:"stage,omitempty"`
	// What Go says.
	Reason string `json:"reason,omitempty"`
}

func main() {
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, 1<<20)
	answers := bufio.NewWriter(out)
	encoder := json.NewEncoder(answers)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			if err := encoder.Encode(answer(line)); err != nil {
				return err
			}
			// More requests in the buffer mean that nobody waits for this answer alone.
			if lines.Buffered() == 0 {
				if err := answers.Flush(); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return answers.Flush()
		}
		if err != nil {
			return err
		}
	}
}

func answer(line []byte) verdict {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return verdict{ID: r.ID, Stage: "request", Reason: err.Error()}
	}
	if failure := judge(r); failure != nil {
		return verdict{ID: r.ID, Stage: failure.stage, Reason: failure.err.Error()}
	}
	return verdict{ID: r.ID, OK: true}
}
