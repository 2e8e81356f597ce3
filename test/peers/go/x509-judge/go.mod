module meshcert.dev/peers/x509-judge

go 1.25.4
