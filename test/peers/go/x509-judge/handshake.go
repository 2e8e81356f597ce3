package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"time"
)

var serverCertificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// handshake returns what a crypto/tls server that requires client certificates says about this one.
func handshake(pair tls.Certificate, roots *x509.CertPool, at time.Time) error {
	own, err := serverCertificate()
	if err != nil {
		return err
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	server := tls.Server(near, &tls.Config{
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              roots,
		MinVersion:             tls.VersionTLS13,
		Time:                   func() time.Time { return at },
		SessionTicketsDisabled: true,
	})
	client := tls.Client(far, &tls.Config{
		InsecureSkipVerify: true,
		// A static certificate is left out when its issuer is not among those that the server names; Envoy sends it.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// The server judges after the client is done; reading takes its alert off the pipe.
		if client.Handshake() == nil {
			_, _ = client.Read(make([]byte, 1))
		} else {
			far.Close()
		}
	}()
	err = server.Handshake()
	near.Close()
	<-ended
	return err
}
