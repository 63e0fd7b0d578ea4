"""EST client for devices: enroll, renew and keep the identity that results."""
