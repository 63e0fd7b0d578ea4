import asyncio

from aiohttp import web

from est_server import est_application, open_service, serve_https, stop_event


async def hello(request):
    client = request.transport.get_extra_info("est.peer_credentials").certificate
    return web.Response(text=f"hello {client.subject.rfc4514_string() if client else 'you'}\n")


async def main():
    stop = stop_event()
    app = web.Application()
    app.router.add_get("/hello", hello)
    async with open_service("est/est-server.toml") as est:
        app.add_subapp("/.well-known/est", est_application(est.service))
        async with await serve_https(app, est.https) as server:
            print("ready", *server.addresses, flush=True)
            await stop.wait()


asyncio.run(main())
