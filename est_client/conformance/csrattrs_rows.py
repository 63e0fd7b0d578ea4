"""/csrattrs and /att (RFC 8951 section 4, RFC 9908): optional, so N/A where there are none."""

from __future__ import annotations

from collections import Counter
from typing import Any

from asn1crypto import core, x509

from est_client.conformance.bench import Bench
from est_client.conformance.reply import Reply
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol.csr_attributes import (
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    CsrAttribute,
    CsrAttributes,
)
from est_protocol.media_types import CSR_ATTRIBUTES, ContentFormat
from est_protocol.messages import Transport
from est_protocol.operations import Operation
from est_protocol.strict_asn1 import decoding, load_der

#: "Nothing wanted", in either way (RFC 8951 section 4), and "no such operation".
_NOTHING = (204, 404, 501)
_KEY_ALGORITHMS = {
    "1.2.840.10045.2.1": "EC",
    "1.2.840.113549.1.1.1": "RSA",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
}


async def _answer(bench: Bench) -> Reply:
    async with bench.channel() as channel:
        reply = await bench.get(channel, Operation.CSRATTRS)
    if reply.code in _NOTHING:
        raise NotApplicable(f"the server wants nothing: {reply.status}")
    if reply.code in (401, 403):
        raise NotApplicable(f"not for this client: {reply}")
    return reply


async def _elements(bench: Bench) -> tuple[CsrAttribute, ...]:
    reply = await _answer(bench)
    if not reply.accepted:
        raise Failed(f"the answer is {reply}")
    return CsrAttributes.decode(reply.der()).elements


@row("ATT-02", Level.MUST, "RFC 8951 4", "200 with application/csrattrs", Transport.HTTPS)
async def typed(bench: Bench) -> str:
    reply = await _answer(bench)
    require(reply.code == 200, f"the answer is {reply}")
    require(reply.media_type.name == CSR_ATTRIBUTES.name, f"the type is {reply.media_type}")
    return f"200, {reply.media_type}"


@row("CF-07", Level.MUST, "RFC 9148 4.3", "/att is content-format 285", Transport.COAPS)
async def typed_coap(bench: Bench) -> str:
    reply = await _answer(bench)
    require(reply.status == "2.05", f"the answer is {reply}")
    found = reply.content_format
    require(found == ContentFormat.CSR_ATTRIBUTES, f"the content-format is {found}")
    return "2.05, 285"


@row("ATT-03", Level.MUST, "RFC 8951 4", "the body is base64 of DER CsrAttrs", Transport.HTTPS)
@row("ATT-28", Level.MUST, "RFC 9908 3.3", "the body is DER CsrAttrs", Transport.COAPS)
async def decodes(bench: Bench) -> str:
    return f"{len(await _elements(bench))} elements"


@row("ATT-08", Level.MUST, "RFC 9908 3.2", "extensions are asked for in one extensionRequest")
async def one_extension_request(bench: Bench) -> str:
    found = [e for e in await _elements(bench) if e.oid == EXTENSION_REQUEST]
    require(len(found) <= 1, f"there are {len(found)}")
    return f"there is {'one' if found else 'none'}"


@row("ATT-09", Level.MUST, "RFC 9908 3.2", "and that has one value of type Extensions")
async def extensions(bench: Bench) -> str:
    names = await _asked_extensions(bench)
    return f"extensions: {', '.join(names) or 'none'}"


@row("ATT-10", Level.MUST_NOT, "RFC 9908 3.2", "no extension is asked for twice")
async def no_duplicates(bench: Bench) -> str:
    twice = [oid for oid, count in Counter(await _asked_extensions(bench)).items() if count > 1]
    require(not twice, f"twice: {', '.join(twice)}")
    return "none"


async def _asked_extensions(bench: Bench) -> list[str]:
    names: list[str] = []
    for element in await _elements(bench):
        if element.oid != EXTENSION_REQUEST:
            continue
        values = element.values or ()
        require(len(values) == 1, f"extensionRequest has {len(values)} values")
        names += _extension_names(values[0])
    return names


def _extension_names(der: bytes) -> list[str]:
    return decoding(
        "Extensions", lambda: [e["extn_id"].dotted for e in load_der(x509.Extensions, der)]
    )


@row("ATT-11", Level.MUST, "RFC 9908 3.2", "one key algorithm is asked for at most")
async def one_key(bench: Bench) -> str:
    found = [e for e in await _elements(bench) if e.values is not None and e.oid in _KEY_ALGORITHMS]
    names = ", ".join(_KEY_ALGORITHMS[e.oid] for e in found)
    require(len(found) <= 1, f"there are {len(found)}: {names}")
    return names or "none"


@row("ATT-13", Level.MUST, "RFC 9908 3.2, 5", "an RSA size is an INTEGER, a curve an OID")
async def key_parameters(bench: Bench) -> str:
    kinds = {"1.2.840.113549.1.1.1": core.Integer, "1.2.840.10045.2.1": core.ObjectIdentifier}
    seen = []
    for element in await _elements(bench):
        kind = kinds.get(element.oid)
        for value in element.values or () if kind else ():
            seen.append(_native(kind, value))
    return ", ".join(seen) or "no key parameters"


def _native(kind: Any, der: bytes) -> str:
    return decoding("key parameters", lambda: str(load_der(kind, der).native))


@row("ATT-23", Level.MUST_NOT, "RFC 9908 3.4", "no template has both kinds of extension wishes")
async def one_kind(bench: Bench) -> str:
    elements = await _elements(bench)
    template = CsrAttributes(elements).template
    if template is None:
        raise NotApplicable("there is no template")
    kinds = Counter(attribute.oid for attribute in template.attributes)
    both = kinds[EXTENSION_REQUEST] and kinds[EXTENSION_TEMPLATE]
    require(not both, "extensionRequest and extensionReqTemplate are both there")
    require(kinds[EXTENSION_TEMPLATE] <= 1, "there are two extensionReqTemplate")
    return "at most one"
