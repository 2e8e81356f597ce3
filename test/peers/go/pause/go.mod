module meshcert.dev/peers/pause

go 1.24.0
