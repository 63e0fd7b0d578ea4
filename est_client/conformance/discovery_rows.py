"""EST-coaps: paths and discovery (RFC 9148 section 4.1, RFC 6690)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiocoap import Message
from aiocoap.numbers import Code

from est_client.conformance.bench import Bench
from est_client.conformance.coap_rows import request_for
from est_client.conformance.reply import Reply
from est_client.conformance.rows import Level, NotApplicable, require, row
from est_protocol.labels import path_segment
from est_protocol.media_types import ContentFormat
from est_protocol.messages import Transport
from est_protocol.operations import Operation

COAPS = Transport.COAPS

_LINK = re.compile(r'<(?P<href>[^>]*)>(?P<attributes>(?:;[^,;"]*(?:"[^"]*")?)*)')
_ATTRIBUTE = re.compile(r';([^=;]+)=(?:"([^"]*)"|([^;]*))')
_MANDATORY = ("crts", "sen", "sren")
_OPTIONAL = {"att": Code.GET, "skg": Code.POST, "skc": Code.POST}


@dataclass(frozen=True, slots=True)
class _Link:
    href: str
    attributes: dict[str, str]

    @property
    def name(self) -> str:
        return self.href.rpartition("/")[2]

    @property
    def parent(self) -> str:
        return self.href.rpartition("/")[0]


async def _discover(bench: Bench, query: str | None) -> Reply:
    message = Message(code=Code.GET)
    message.opt.uri_path = (".well-known", "core")
    if query is not None:
        message.opt.uri_query = (query,)
    async with bench.coap() as channel:
        return await bench.ask_coap(channel, message)


async def _links(bench: Bench, query: str = "rt=ace.est*") -> list[_Link]:
    reply = await _discover(bench, query)
    if not reply.accepted:
        raise NotApplicable(f"no discovery: {reply}")
    text = reply.body.decode(errors="replace")
    return [
        _Link(
            found["href"],
            {
                name: quoted or bare
                for name, quoted, bare in _ATTRIBUTE.findall(found["attributes"])
            },
        )
        for found in _LINK.finditer(text)
    ]


def _under_label(links: list[_Link], label: str | None) -> list[_Link]:
    """Those of one label: what another label offers is another matter."""
    roots = sorted((link.parent for link in links if link.name == "crts"), key=len)
    if not roots:
        return []
    parent = roots[0] if label is None else f"{roots[0]}/{path_segment(label)}"
    return [link for link in links if link.parent == parent]


@row("CU-01", Level.MUST, "RFC 9148 4.1", "the short names /crts, /sen, /sren", COAPS)
async def short_names(bench: Bench) -> str:
    seen = []
    for operation in (Operation.CACERTS, Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL):
        async with bench.coap() as channel:
            if operation is Operation.CACERTS:
                reply = await bench.get(channel, operation)
            else:
                reply = await bench.post(channel, operation, b"\x30\x00")
        missing = reply.code in (404, 405, 501)
        require(not missing, f"/{operation.short_name} is answered {reply}")
        seen.append(f"/{operation.short_name} {reply.status}")
    return ", ".join(seen)


@row("CU-02", Level.MUST, "RFC 9148 4.1", "/.well-known/est without discovery", COAPS)
async def default_root(bench: Bench) -> str:
    message = Message(code=Code.GET)
    message.opt.uri_path = (".well-known", "est", "crts")
    async with bench.coap() as channel:
        reply = await bench.ask_coap(channel, message)
    return f"/.well-known/est/crts: {len(reply.certificates())} certificates"


@row("CU-03", Level.SHOULD, "RFC 9148 4.1", "the resources are discovered", COAPS)
async def discovery(bench: Bench) -> str:
    reply = await _discover(bench, "rt=ace.est*")
    require(reply.accepted, f"the answer is {reply}")
    return f"{len(await _links(bench))} links"


@row("CU-04", Level.MUST, "RFC 9148 4.1", "crts, sen and sren are among the links", COAPS)
async def mandatory_links(bench: Bench) -> str:
    found = await _links(bench)
    for name in _MANDATORY:
        there = any(f"ace.est.{name}" in link.attributes.get("rt", "").split() for link in found)
        require(there, f"there is no link to {name}")
    return ", ".join(link.href for link in found)


@row("CU-05", Level.MUST, "RFC 9148 4.1", "att, skg, skc are only if they are there", COAPS)
async def optional_links(bench: Bench) -> str:
    found = {link.name for link in _under_label(await _links(bench), bench.location.label)}
    seen = []
    for name, code in _OPTIONAL.items():
        message = request_for(bench, name, code)
        if code is Code.POST:
            message.payload, message.opt.content_format = b"\x30\x00", ContentFormat.PKCS10
        async with bench.coap() as channel:
            reply = await bench.ask_coap(channel, message)
        linked = name in found
        # Without CSR attributes /att is 4.04 also where it is implemented (section 4.5).
        wrong = reply.code == 404 if linked and name != "att" else linked and reply.code == 405
        wrong = wrong or (not linked and reply.accepted)
        require(not wrong, f"/{name} is {'' if linked else 'not '}linked and answered {reply}")
        seen.append(f"{name} {'linked' if linked else 'not linked'}: {reply.status}")
    return ", ".join(seen)


@row("CU-06", Level.SHOULD, "RFC 9148 4.1", "the links have rt and ct", COAPS)
async def attributes(bench: Bench) -> str:
    found = await _links(bench)
    for link in found:
        require("rt" in link.attributes and "ct" in link.attributes, f"{link.href} lacks one")
    formats = {link.name: link.attributes["ct"] for link in found}
    for name in _MANDATORY:
        has = "281" in formats.get(name, "").split()
        require(has, f"the ct of {name} is {formats.get(name)!r}, without 281")
    return ", ".join(f"{name} ct={ct}" for name, ct in formats.items())


@row("CU-07", Level.MUST, "RFC 9148 4.1, RFC 6690 4.1", "queries by prefix and by name", COAPS)
async def queries(bench: Bench) -> str:
    everything = await _links(bench)
    exact = await _links(bench, "rt=ace.est.crts")
    none = await _links(bench, "rt=ace.est.nothing")
    wrong = [link.href for link in exact if link.attributes.get("rt") != "ace.est.crts"]
    require(bool(exact) and not wrong, f"rt=ace.est.crts finds {', '.join(wrong) or 'nothing'}")
    require(not none, f"rt=ace.est.nothing finds {len(none)}")
    require(len(everything) > len(exact), "rt=ace.est* finds no more than rt=ace.est.crts")
    return f"rt=ace.est* finds {len(everything)}, rt=ace.est.crts {len(exact)}"


@row("CU-10", Level.MAY, "RFC 9148 4.1", "a label selects a CA", COAPS)
async def label(bench: Bench) -> str:
    if bench.location.label is None:
        raise NotApplicable("no label was given")
    async with bench.coap() as channel:
        reply = await bench.get(channel, Operation.CACERTS)
    return f"label {bench.location.label!r}: {len(reply.certificates())} CA certificates"


@row("CU-13", Level.MUST, "RFC 6690, RFC 7252 7.2", "/.well-known/core is content-format 40", COAPS)
async def link_format(bench: Bench) -> str:
    reply = await _discover(bench, None)
    if not reply.accepted:
        raise NotApplicable(f"no discovery: {reply}")
    require(reply.status == "2.05", f"the answer is {reply}")
    require(reply.content_format == 40, f"the content-format is {reply.content_format}")
    return "2.05, 40"
