package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

type failure struct {
	stage string
	err   error
}

func judge(r request) *failure {
	at := time.Now()
	if r.At != nil {
		at = time.UnixMilli(*r.At)
	}
	chain, err := parse(r.Chain)
	if err != nil {
		return &failure{"parse", err}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(r.Roots))
	usages, err := usagesOf(r.Usages)
	if err != nil {
		return &failure{"request", err}
	}

	var pair tls.Certificate
	if r.Key != "" {
		if pair, err = tls.X509KeyPair([]byte(r.Chain), []byte(r.Key)); err != nil {
			return &failure{"key", err}
		}
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: usages}
	paths, err := chain[0].Verify(options)
	if err != nil {
		return &failure{"verify", err}
	}
	if r.CRLs != "" {
		if refused := revocation(paths[0], r.CRLs, at); refused != nil {
			return refused
		}
	}
	if err := checkNames(chain[0], r); err != nil {
		return &failure{"name", err}
	}
	if r.Handshake {
		if r.Key == "" {
			return &failure{"request", errors.New("a handshake needs the key")}
		}
		if err := handshake(pair, roots, at); err != nil {
			return &failure{"handshake", err}
		}
	}
	return nil
}

func checkNames(leaf *x509.Certificate, r request) error {
	if r.URI != "" && (len(leaf.URIs) != 1 || leaf.URIs[0].String() != r.URI) {
		return fmt.Errorf("the leaf has the URI names %v, not exactly %s", leaf.URIs, r.URI)
	}
	if r.DNS != "" {
		return leaf.VerifyHostname(r.DNS)
	}
	return nil
}

func parse(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain), err)
		}
		chain = append(chain, certificate)
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	return chain, nil
}

func usagesOf(names []string) ([]x509.ExtKeyUsage, error) {
	if len(names) == 0 {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, nil
	}
	known := map[string]x509.ExtKeyUsage{
		"client": x509.ExtKeyUsageClientAuth,
		"server": x509.ExtKeyUsageServerAuth,
		"any":    x509.ExtKeyUsageAny,
	}
	var usages []x509.ExtKeyUsage
	for _, name := range names {
		usage, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("unknown usage %q", name)
		}
		usages = append(usages, usage)
	}
	return usages, nil
}
