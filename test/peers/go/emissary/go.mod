module meshcert.dev/peers/emissary

go 1.24.0

require github.com/emissary-ingress/emissary/v3 v3.10.0
