package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"sync/atomic"
	"time"
)

type validity struct{ lifetime, skew time.Duration }

// issuer signs leaves. Its serials start at 1 at every load, as Linkerd's do, so they name nothing.
type issuer struct {
	chain  []*x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return certificates, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certificates = append(certificates, certificate)
	}
}

func loadIssuer(certFile, keyFile string) (*issuer, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the issuer key must be ECDSA")
	}
	chain, err := readCertificates(certFile)
	if err != nil {
		return nil, err
	}
	return &issuer{chain: chain, key: key}, nil
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

func (i *issuer) verify(roots []*x509.Certificate, now time.Time) error {
	_, err := i.chain[0].Verify(x509.VerifyOptions{
		Roots:         pool(roots),
		Intermediates: pool(i.chain[1:]),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// issue returns the DER leaf for a CSR. Its validity never outlives any certificate of the issuer's chain.
func (i *issuer) issue(csr *x509.CertificateRequest, v validity, now time.Time) ([]byte, time.Time, error) {
	publicKey, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, time.Time{}, errors.New("CSR must contain an ECDSA public key")
	}
	notAfter := now.Add(v.lifetime + v.skew)
	for _, c := range i.chain {
		if c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
	}
	template := &x509.Certificate{
		SerialNumber:       big.NewInt(i.serial.Add(1)),
		Subject:            csr.Subject,
		DNSNames:           csr.DNSNames,
		NotBefore:          now.Add(-v.skew),
		NotAfter:           notAfter,
		SignatureAlgorithm: x509.ECDSAWithSHA256,
		KeyUsage:           x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:        []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.chain[0], publicKey, i.key)
	return der, notAfter, err
}
