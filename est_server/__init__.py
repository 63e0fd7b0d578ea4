"""EST server: RFC 7030 over HTTPS and RFC 9148 over CoAPS, authorized by a device list."""
