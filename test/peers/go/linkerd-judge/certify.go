package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	pb "github.com/linkerd/linkerd2-proxy-api/go/identity"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type identityDomain struct{ controlNamespace, trustDomain string }

func (d identityDomain) name(kind, namespace, name string) string {
	return fmt.Sprintf("%s.%s.%s.identity.%s.%s", name, namespace, kind, d.controlNamespace, d.trustDomain)
}

type identityService struct {
	pb.UnimplementedIdentityServer
	domain   identityDomain
	reviewer *reviewer
	roots    []*x509.Certificate
	validity validity
	issuer   atomic.Pointer[issuer]
}

func (s *identityService) setIssuer(i *issuer) { s.issuer.Store(i) }

func (s *identityService) Certify(ctx context.Context, request *pb.CertifyRequest) (*pb.CertifyResponse, error) {
	response, err := s.certify(ctx, request, time.Now())
	if err != nil {
		log.Printf("refused %q: %v", request.GetIdentity(), err)
	}
	return response, err
}

func (s *identityService) certify(ctx context.Context, request *pb.CertifyRequest, now time.Time) (*pb.CertifyResponse, error) {
	issuer := s.issuer.Load()
	if issuer == nil {
		return nil, status.Error(codes.Unavailable, "cert issuer not ready yet")
	}
	identity, token, der := request.GetIdentity(), request.GetToken(), request.GetCertificateSigningRequest()
	switch {
	case identity == "":
		return nil, status.Error(codes.InvalidArgument, "missing identity")
	case len(token) == 0:
		return nil, status.Error(codes.InvalidArgument, "missing token")
	case len(der) == 0:
		return nil, status.Error(codes.InvalidArgument, "missing certificate signing request")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// Returned raw: gRPC turns it into UNKNOWN, which is what Linkerd's clients see.
	if err := issuer.verify(s.roots, now); err != nil {
		log.Printf("IssuerValidationFailed: %v", err)
		return nil, err
	}
	if err := checkRequest(csr, identity); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}

	kind, namespace, name, err := s.reviewer.owner(ctx, string(token))
	switch {
	case errors.Is(err, errInvalidToken):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, errNotAuthenticated):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	}
	if owned := s.domain.name(kind, namespace, name); owned != identity {
		return nil, status.Errorf(codes.FailedPrecondition, "requested identity did not match provided token: requested=%s; found=%s", identity, owned)
	}

	leaf, notAfter, err := issuer.issue(csr, s.validity, now)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	intermediates := make([][]byte, 0, len(issuer.chain))
	for _, c := range issuer.chain {
		intermediates = append(intermediates, c.Raw)
	}
	log.Printf("IssuedLeafCertificate: %s until %s", identity, notAfter.UTC().Format(time.RFC3339))
	return &pb.CertifyResponse{
		LeafCertificate:          leaf,
		IntermediateCertificates: intermediates,
		ValidUntil:               timestamppb.New(notAfter),
	}, nil
}

func checkRequest(csr *x509.CertificateRequest, identity string) error {
	if len(csr.DNSNames) != 1 {
		return errors.New("CSR must have exactly one DNSName")
	}
	if csr.DNSNames[0] != identity {
		return fmt.Errorf("CSR name does not match requested identity: csr=%s; req=%s", csr.DNSNames[0], identity)
	}
	if cn := csr.Subject.CommonName; cn != "" && cn != identity {
		return fmt.Errorf("invalid CN: %s", cn)
	}
	if len(csr.EmailAddresses) > 0 {
		return errors.New("cannot validate email addresses")
	}
	if len(csr.IPAddresses) > 0 {
		return errors.New("cannot validate IP addresses")
	}
	if len(csr.URIs) > 0 {
		return errors.New("cannot validate URIs")
	}
	return nil
}
