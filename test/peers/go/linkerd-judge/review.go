package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"crypto/x509"
)

// The audience of the tokens that Linkerd projects into its pods.
const audience = "identity.l5d.io"

var (
	errInvalidToken     = errors.New("invalid token")
	errNotAuthenticated = errors.New("token is not authenticated")
	dns1123Label        = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

type reviewer struct {
	url, token string
	client     *http.Client
}

func newReviewer(apiserver, caFile, token string) (*reviewer, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: no certificate", caFile)
	}
	return &reviewer{
		url:   strings.TrimSuffix(apiserver, "/") + "/apis/authentication.k8s.io/v1/tokenreviews",
		token: token,
		client: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		},
	}, nil
}

type tokenReview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences,omitempty"`
	} `json:"spec"`
	Status struct {
		Authenticated bool   `json:"authenticated"`
		Error         string `json:"error"`
		User          struct {
			Username string `json:"username"`
		} `json:"user"`
	} `json:"status"`
}

func (r *reviewer) review(ctx context.Context, token string, audiences []string) (*tokenReview, error) {
	var ask tokenReview
	ask.APIVersion, ask.Kind = "authentication.k8s.io/v1", "TokenReview"
	ask.Spec.Token, ask.Spec.Audiences = token, audiences
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("authorization", "Bearer "+r.token)
	request.Header.Set("content-type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("tokenreview: %s: %s", response.Status, text)
	}
	var answer tokenReview
	return &answer, json.Unmarshal(text, &answer)
}

// owner returns type, namespace and name of the account that the token belongs to. A failed call
// comes back as it is; a token that is wrong as errInvalidToken or errNotAuthenticated.
func (r *reviewer) owner(ctx context.Context, token string) (kind, namespace, name string, err error) {
	answer, err := r.review(ctx, token, []string{audience})
	if err != nil {
		return "", "", "", err
	}
	if strings.Contains(answer.Status.Error, "token audiences") {
		if answer, err = r.review(ctx, token, nil); err != nil {
			return "", "", "", err
		}
	}
	if answer.Status.Error != "" {
		return "", "", "", fmt.Errorf("%w: %s", errInvalidToken, answer.Status.Error)
	}
	if !answer.Status.Authenticated {
		return "", "", "", errNotAuthenticated
	}
	parts := strings.Split(answer.Status.User.Username, ":")
	if len(parts) != 4 || parts[0] != "system" {
		return "", "", "", fmt.Errorf("%w: username %q", errInvalidToken, answer.Status.User.Username)
	}
	for _, part := range parts[1:] {
		if !dns1123Label.MatchString(part) {
			return "", "", "", fmt.Errorf("%w: %q is not a DNS-1123 label", errInvalidToken, part)
		}
	}
	return parts[1], parts[2], parts[3], nil
}
