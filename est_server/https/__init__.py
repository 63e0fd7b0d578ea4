"""EST over HTTPS (RFC 7030): translation only, no decision."""
