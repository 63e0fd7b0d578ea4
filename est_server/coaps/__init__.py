"""EST over CoAPS (RFC 9148): translation only, no decision."""
