"""Bouncy Castle's EST client against the HTTPS server."""
