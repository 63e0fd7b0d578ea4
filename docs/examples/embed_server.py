import asyncio

from est_server import EstServer, RefusalReason, RequestRefused, grant_for, stop_event

MY_DEVICES = {"<SHA-256 of the device's public key, in hex>": "sensor-0001"}


async def authorize(request, client):
    if client.issued:  # the client holds a certificate that this server issued: a renewal
        return grant_for(request, device=client.issued.device)
    for key in client.proven_keys:  # the client holds the private halves of these
        if name := MY_DEVICES.get(key.hex()):
            return grant_for(request, device=name)
    raise RequestRefused(RefusalReason.UNKNOWN_DEVICE, "your key is not one of mine")


async def main():
    stop = stop_event()  # SIGTERM and Ctrl-C
    async with EstServer.from_config("est/est-server.toml", authorizer=authorize) as server:
        print("ready", server, flush=True)
        await stop.wait()


asyncio.run(main())
