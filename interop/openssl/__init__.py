"""TLS and DTLS as OpenSSL and GnuTLS find them."""
