import asyncio

from est_server import Alarm, EstServer, stop_event


async def tell(alarm: Alarm) -> None:
    print(f"{alarm.kind}: device {alarm.device} from {alarm.peer}: {alarm.detail}", flush=True)


async def main() -> None:
    stop = stop_event()  # SIGTERM and Ctrl-C
    async with EstServer.from_config("est/est-server.toml", alarm_sink=tell) as server:
        print("ready", server, flush=True)
        await stop.wait()


asyncio.run(main())
