package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// revocation asks each certificate of the chain, the root included, for a CRL of its issuer that Go can read, that is
// current, and whose signature is right. Go has no check of its own: it reads lists and verifies their signatures.
func revocation(chain []*x509.Certificate, text string, at time.Time) *failure {
	var lists []*x509.RevocationList
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return &failure{"crl", err}
		}
		lists = append(lists, list)
	}
	for n, certificate := range chain {
		issuer := chain[min(n+1, len(chain)-1)]
		list, err := listOf(issuer, lists, at)
		if err != nil {
			return &failure{"crl", fmt.Errorf("no CRL for %s: %w", certificate.Subject, err)}
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
				return &failure{"revoked", fmt.Errorf("%s is revoked", certificate.SerialNumber)}
			}
		}
	}
	return nil
}

func listOf(issuer *x509.Certificate, lists []*x509.RevocationList, at time.Time) (*x509.RevocationList, error) {
	last := fmt.Errorf("none is of its issuer")
	for _, list := range lists {
		if !bytes.Equal(list.RawIssuer, issuer.RawSubject) {
			continue
		}
		if last = unusable(list, issuer, at); last == nil {
			return list, nil
		}
	}
	return nil, last
}

func unusable(list *x509.RevocationList, issuer *x509.Certificate, at time.Time) error {
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	if at.Before(list.ThisUpdate) || (!list.NextUpdate.IsZero() && at.After(list.NextUpdate)) {
		return fmt.Errorf("it is of another time")
	}
	for _, extension := range list.Extensions {
		if extension.Critical {
			return fmt.Errorf("critical extension %s", extension.Id)
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, extension := range entry.Extensions {
			if extension.Critical {
				return fmt.Errorf("critical extension %s of an entry", extension.Id)
			}
		}
	}
	return nil
}
