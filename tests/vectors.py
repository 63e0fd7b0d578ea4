"""The messages printed in the RFCs, kept beside the repository; tests skip where they are not."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[1].parent / "shared" / "conformance" / "vectors"


def rfc_vector(name: str) -> bytes:
    """The octets of the vector file ``name``; ``.b64`` and ``.hex`` are decoded.

    Set ``EST_VECTORS`` to a directory to read them from elsewhere.
    """
    text = rfc_vector_as_sent(name)
    if name.endswith(".b64"):
        return base64.b64decode(text)
    return bytes.fromhex(text.decode("ascii")) if name.endswith(".hex") else text


def rfc_vector_as_sent(name: str) -> bytes:
    """The octets of the vector file itself, as they travel in an HTTP body."""
    path = Path(os.environ.get("EST_VECTORS", _BESIDE)) / name
    if not path.is_file():
        pytest.skip(f"no conformance vectors at {path.parent}")
    return path.read_bytes()
