"""Publishing certificate revocation lists: when a new one is due, and serving it over HTTP."""
