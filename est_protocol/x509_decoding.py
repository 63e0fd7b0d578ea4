"""Decoding X.509 from the network to the end.

``cryptography`` decodes subject, extensions and key only when they are asked for, and says that
they do not decode by exceptions of many kinds. Here they become one, at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from est_protocol.errors import MessageError
from est_protocol.keys import spki_der

_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    # These have no base but Exception.
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@contextmanager
def decoding_x509(what: str) -> Iterator[None]:
    """Turn whatever ``cryptography`` raises for bad octets into :class:`MessageError`.

    Its warnings about what it tolerates, such as a country of three letters, are for those who
    make certificates and are ignored.

    :param what: what is being decoded, the subject of the error's sentence.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except _ERRORS as error:
            raise MessageError(f"{what} does not decode: {error}") from error


def check_names_and_key(certificate: x509.Certificate) -> None:
    """Make sure that a certificate's subject, issuer and key decode; to be called in
    :func:`decoding_x509`."""
    for part in ("subject", "issuer", "serial_number"):
        getattr(certificate, part)
    spki_der(certificate.public_key())
