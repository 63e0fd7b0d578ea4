"""strongSwan's pki against the HTTPS server."""
