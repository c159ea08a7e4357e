"""A client made of `websockets` as a process of its own, which can be stopped or cut off: sends one message, takes whatever
comes, and reports how it ended. Arguments: URL and message."""

import asyncio
import sys

import websockets
from reporting import report


async def main(url, message):
    async with websockets.connect(url, compression=None, max_size=None, ping_interval=None, proxy=None) as socket:
        report("opened")
        await socket.send(message)
        heard = 0
        try:
            async for _ in socket:
                heard += 1
                if heard == 1:
                    report("heard")
        except websockets.ConnectionClosed:
            pass
    report("closed", code=socket.close_code, reason=socket.close_reason)


asyncio.run(main(*sys.argv[1:]))
