"""What the chains of clients may end at."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509

from est_protocol.credentials import AnchorSet
from est_protocol.errors import ConfigurationError
from est_protocol.secure_channel.context import TrustAnchors
from est_server.config import ServerConfig
from est_server.pem_files import load_certificates


def load_anchors(config: ServerConfig) -> TrustAnchors:
    """The issuing CAs of this server, and the manufacturers that it is told to believe.

    The issuing certificates themselves, not the root above them: what the root may issue besides
    is no operational certificate.

    :raises ConfigurationError: a file has no certificate in it, or this server's own CA is among
        the manufacturers.
    """
    manufacturers = [c for loaded in load_manufacturers(config).values() for c in loaded]
    require_foreign(config, manufacturers)
    operational = [load_certificates(a.certificate)[0] for a in config.authorities.values()]
    return TrustAnchors({AnchorSet.OPERATIONAL: operational, AnchorSet.MANUFACTURER: manufacturers})


def load_manufacturers(config: ServerConfig) -> dict[str, tuple[x509.Certificate, ...]]:
    """The certificates of each manufacturer that this server is told to believe, by the name of
    its file without ``.pem``.

    :raises ConfigurationError: a file has no certificate in it.
    """
    directory = config.trust.manufacturers
    files = sorted(directory.glob("*.pem")) if directory else []
    return {file.stem: tuple(load_certificates(file)) for file in files}


def require_foreign(config: ServerConfig, manufacturers: Iterable[x509.Certificate]) -> None:
    """Check that no certificate of this server's own CA is to be a manufacturer's.

    An operational certificate would be taken for a birth certificate.

    :raises ConfigurationError: one is.
    """
    own = {
        certificate
        for authority in config.authorities.values()
        for file in (authority.certificate, authority.rollover)
        if file is not None
        for certificate in load_certificates(file)
    }
    for certificate in manufacturers:
        if certificate in own:
            name = certificate.subject.rfc4514_string()
            raise ConfigurationError(f"{name} is the CA of this server, not of a manufacturer")
