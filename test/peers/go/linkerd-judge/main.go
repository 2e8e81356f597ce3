// Command linkerd-judge answers io.linkerd.proxy.identity.Identity/Certify as Linkerd's identity
// controller does: the same checks in the same order with the same gRPC codes, plaintext h2c.
//
// It is stricter than the controller in one point: the self-signature of a CSR is verified, so that
// a client that signs wrongly is caught here.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	pb "github.com/linkerd/linkerd2-proxy-api/go/identity"
	"google.golang.org/grpc"
)

type options struct {
	addr, issuerCert, issuerKey, roots string
	trustDomain, linkerdNamespace      string
	apiserver, apiserverCA, token      string
	lifetime, skew                     time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.addr, "addr", "127.0.0.1:8080", "address to listen on")
	flag.StringVar(&o.issuerCert, "issuer-cert", "", "PEM file: the issuer and any intermediates above it, issuer first")
	flag.StringVar(&o.issuerKey, "issuer-key", "", "PEM file: the issuer's ECDSA key")
	flag.StringVar(&o.roots, "roots", "", "PEM file: the trust anchors; read once, like Linkerd's")
	flag.StringVar(&o.trustDomain, "trust-domain", "cluster.local", "identity trust domain")
	flag.StringVar(&o.linkerdNamespace, "linkerd-namespace", "linkerd", "namespace of the control plane")
	flag.StringVar(&o.apiserver, "apiserver", "", "URL of the API server that reviews tokens")
	flag.StringVar(&o.apiserverCA, "apiserver-ca", "", "PEM file: CA of the API server")
	flag.StringVar(&o.token, "token", "", "bearer token that may create tokenreviews")
	flag.DurationVar(&o.lifetime, "lifetime", 24*time.Hour, "leaf lifetime")
	flag.DurationVar(&o.skew, "skew", 20*time.Second, "added on both ends of a leaf's validity")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	reviewer, err := newReviewer(o.apiserver, o.apiserverCA, o.token)
	if err != nil {
		return err
	}
	roots, err := readCertificates(o.roots)
	if err != nil {
		return err
	}
	if len(roots) == 0 {
		return errors.New("no trust anchors")
	}
	service := &identityService{
		domain:   identityDomain{controlNamespace: o.linkerdNamespace, trustDomain: o.trustDomain},
		reviewer: reviewer,
		roots:    roots,
		validity: validity{lifetime: o.lifetime, skew: o.skew},
	}
	load := func() {
		issuer, err := loadIssuer(o.issuerCert, o.issuerKey)
		if err == nil {
			err = issuer.verify(roots, time.Now())
		}
		if err != nil {
			log.Printf("IssuerUpdateSkipped: %v", err)
			return
		}
		service.setIssuer(issuer)
		log.Printf("IssuerUpdated: %s, not after %s", issuer.chain[0].Subject.CommonName,
			issuer.chain[0].NotAfter.UTC().Format(time.RFC3339))
	}
	load()

	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pb.RegisterIdentityServer(server, service)

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				if s == syscall.SIGHUP {
					load()
					continue
				}
				server.Stop()
				return
			}
		}
	}()
	fmt.Fprintf(os.Stderr, "serving on %s\n", listener.Addr())
	return server.Serve(listener)
}
