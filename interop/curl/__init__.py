"""curl and openssl against the HTTPS server, as one enrolls by hand."""
