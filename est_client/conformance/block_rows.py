"""Block-wise transfer (RFC 7959, RFC 9148 section 4.6)."""

from __future__ import annotations

from aiocoap import Message
from aiocoap.numbers import Code, OptionNumber
from aiocoap.optiontypes import OpaqueOption

from est_client.conformance.bench import Bench, Channel
from est_client.conformance.coap_channel import CoapChannel, Received, reply_of
from est_client.conformance.coap_rows import request_for
from est_client.conformance.reply import Reply
from est_client.conformance.rows import Failed, Level, NotApplicable, require, row
from est_protocol.errors import ChannelClosed
from est_protocol.messages import Transport
from est_protocol.operations import Operation

COAPS = Transport.COAPS

#: SZX of blocks of 64 and of 256 octets.
_64, _256 = 2, 4
#: 256 KiB in blocks of 1024: more than any CSR.
_ENDLESS = 256


def _crts(bench: Bench, number: int, szx: int) -> Message:
    message = request_for(bench, Operation.CACERTS)
    message.opt.block2 = (number, False, szx)
    return message


def _block1(bench: Bench, number: int, more: bool, szx: int) -> Message:
    payload = b"\x30" * (1 << (szx + 4))
    message = bench.coap_post(Operation.SIMPLEENROLL, payload)
    message.opt.block1 = (number, more, szx)
    return message


@row("BW-01", Level.MUST, "RFC 9148 4.6", "Block1 and Block2 in every size", COAPS)
async def every_size(bench: Bench) -> str:
    async with bench.coap() as channel:
        whole = (await bench.get(channel, Operation.CACERTS)).body
        for szx in range(7):
            _, body = await channel.fetch(_crts(bench, 0, szx))
            size = 1 << (szx + 4)
            require(body == whole, f"/crts in blocks of {size} octets is another body")
    try:
        for szx in (0, _64, _256):
            await _upload_in(bench, szx)
    except NotApplicable:
        return f"/crts, {len(whole)} octets, in blocks of 16 to 1024"
    return f"/crts, {len(whole)} octets, in blocks of 16 to 1024; CSRs in blocks of 16, 64, 256"


async def _upload_in(bench: Bench, szx: int) -> Reply:
    async def send(channel: Channel, operation: Operation, der: bytes) -> Reply:
        assert isinstance(channel, CoapChannel)
        first = await channel.upload(bench.coap_post(operation, der), szx)
        return await bench.complete(channel, operation, first)

    return await bench.require_granted(f"a CSR in blocks of {1 << (szx + 4)} octets", send=send)


@row("BW-04", Level.MAY, "RFC 7959 4", "Size2 where it is asked for", COAPS)
async def size2(bench: Bench) -> str:
    message = _crts(bench, 0, _64)
    message.opt.size2 = 0
    async with bench.coap() as channel:
        whole = (await bench.get(channel, Operation.CACERTS)).body
        answer = (await channel.exchange(message)).message
    if answer.opt.size2 is None:
        return "not said"
    require(answer.opt.size2 == len(whole), f"{answer.opt.size2} for {len(whole)} octets")
    return f"{answer.opt.size2} octets"


@row("BW-06", Level.MUST, "RFC 7959 2.3, 2.9.1", "a block that is not the last gets 2.31", COAPS)
async def continues(bench: Bench) -> str:
    async with bench.coap() as channel:
        answer = (await channel.exchange(_block1(bench, 0, True, _64))).message
    require(answer.code is Code.CONTINUE, f"the first block is answered {answer.code.dotted}")
    block = answer.opt.block1
    if block is None:
        raise Failed("the answer has no Block1")
    require(block.block_number == 0 and block.more, f"the answer has Block1 {block}")
    return "2.31 with Block1 (0, more)"


@row("BW-07", Level.MUST, "RFC 9148 B.2", "the last answer has Block1, and Block2 if large", COAPS)
async def last_block(bench: Bench) -> str:
    answers: list[Received] = []

    async def send(channel: Channel, operation: Operation, der: bytes) -> Reply:
        assert isinstance(channel, CoapChannel)
        answers.append(await channel.upload(bench.coap_post(operation, der), _64))
        return await bench.complete(channel, operation, answers[-1])

    reply = await bench.require_granted("a CSR in blocks", send=send)
    block1, block2 = answers[-1].message.opt.block1, answers[-1].message.opt.block2
    if block1 is None:
        raise Failed("the answer has no Block1")
    require(not block1.more, "the answer to the last block has M=1")
    long = len(reply.body) > len(answers[-1].message.payload)
    require(block2 is not None or not long, "the answer has no Block2")
    return f"Block1 ({block1.block_number}, last), {len(reply.body)} octets in all"


@row("BW-09", Level.MUST, "RFC 7959 2.9.2", "a gap is 4.08", COAPS)
async def gap(bench: Bench) -> str:
    async with bench.coap() as channel:
        await channel.exchange(_block1(bench, 0, True, _64))
        after = (await channel.exchange(_block1(bench, 2, True, _64))).message
    async with bench.coap() as channel:
        first = (await channel.exchange(_block1(bench, 3, True, _64))).message
    for what, answer in (("a missing block", after), ("a missing beginning", first)):
        require(answer.code is Code.REQUEST_ENTITY_INCOMPLETE, f"{what}: {answer.code.dotted}")
    return "4.08 for a block that is missing, and for a beginning that is"


@row("BW-10", Level.MUST, "RFC 7959 2.2-2.4", "SZX 7 is none; sizes may change", COAPS)
async def sizes(bench: Bench) -> str:
    reserved = request_for(bench, Operation.CACERTS)
    reserved.opt.add_option(OpaqueOption(OptionNumber.BLOCK2, b"\x07"))
    async with bench.coap() as channel:
        answer = await channel.exchange(reserved)
        reply = reply_of(answer, bytes(answer.message.payload))
        require(reply.refused, f"SZX 7 is answered {reply}")
        first = (await channel.exchange(_crts(bench, 0, _256))).message
        if first.opt.block2 is None or not first.opt.block2.more:
            raise NotApplicable("/crts is shorter than 256 octets")
        second = (await channel.exchange(_crts(bench, 4, _64))).message
        _, whole = await channel.fetch(_crts(bench, 0, _256))
    require(bytes(second.payload) == whole[256:320], "block 4 of 64 does not follow block 0 of 256")
    return f"SZX 7 is answered {reply.status}; block 4 of 64 follows block 0 of 256"


@row("BW-11", Level.SHOULD, "RFC 7959 7", "what is put together is bounded", COAPS)
async def bounded(bench: Bench) -> str:
    async with bench.coap() as channel:
        for number in range(_ENDLESS):
            try:
                answer = (await channel.exchange(_block1(bench, number, True, 6))).message
            except ChannelClosed as error:
                return f"the server gives up after {number} KiB: {error}"
            if answer.code is not Code.CONTINUE:
                return f"{answer.code.dotted} after {number} KiB"
    raise Failed(f"{_ENDLESS} KiB are taken without end")


@row("BW-12", Level.SHOULD, "RFC 7959 2.4", "blocks have the ETag of their body", COAPS)
async def etags(bench: Bench) -> str:
    async with bench.coap() as channel:
        await bench.get(channel, Operation.CACERTS)
        first = (await channel.exchange(_crts(bench, 0, _64))).message
        second = (await channel.exchange(_crts(bench, 1, _64))).message
    require(bool(first.opt.etag), "there is none")
    require(first.opt.etag == second.opt.etag, "two blocks of one body have different ones")
    return str(first.opt.etag.hex())


@row("BW-13", Level.MAY, "RFC 9177", "Q-Block1 is understood or 4.02", COAPS)
async def q_block(bench: Bench) -> str:
    message = request_for(bench, Operation.CACERTS)
    message.opt.add_option(OpaqueOption(OptionNumber(19), b"\x02"))
    async with bench.coap() as channel:
        reply = await bench.ask_coap(channel, message)
    require(reply.code == 402 or reply.accepted, f"it is answered {reply}")
    return f"it is answered {reply.status}"
