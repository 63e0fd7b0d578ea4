"""The machine's own trust anchors, for the Implicit TA database (RFC 7030 section 3.1)."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from est_client.device_keys import chain_from_pem
from est_protocol.errors import ConfigurationError

#: The bundle within OpenSSL's certificate directory, on Debian and its relatives.
_BUNDLE = "ca-certificates.crt"


def system_trust_anchors() -> tuple[x509.Certificate, ...]:
    """The anchors of the machine; ``SSL_CERT_FILE`` names another bundle, as for OpenSSL.

    :raises ConfigurationError: there is no bundle.
    """
    paths = ssl.get_default_verify_paths()
    candidates = [Path(paths.cafile)] if paths.cafile else []
    if paths.capath:
        candidates.append(Path(paths.capath) / _BUNDLE)
    for candidate in candidates:
        if candidate.is_file():
            return chain_from_pem(candidate.read_bytes(), str(candidate))
    raise ConfigurationError("this machine has no bundle of CA certificates")
