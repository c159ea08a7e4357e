"""The known-good peer, made of `websockets`: an echo server for the fuzzing client, or an echo client for the fuzzing
server.

    echo_peer.py server
    echo_peer.py client URL CONCURRENCY
"""

import asyncio
import json
import logging
import os
import sys

# Cases 9.3 and 9.4 cut 4 MiB into fragments of 64 bytes; the library's own limit is lower and is read at import.
os.environ["WEBSOCKETS_MAX_FRAGMENTS"] = str(4 * 1024 * 1024)

import websockets
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

OPTIONS = {"max_size": None, "ping_interval": None}
# Two offers, so that the cases which ask the client to forget its window find one that they can take.
OFFERS = [
    ClientPerMessageDeflateFactory(client_max_window_bits=True),
    ClientPerMessageDeflateFactory(client_max_window_bits=True, client_no_context_takeover=True),
]


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serve_echo():
    async with serve(echo, "127.0.0.1", 0, **OPTIONS) as server:
        print(json.dumps({"event": "listening", "port": server.sockets[0].getsockname()[1]}), flush=True)
        # Whoever started this holds the other end of standard input; its end is the end of this server.
        await asyncio.to_thread(sys.stdin.read)


async def run_cases(url, concurrency):
    count = int(await ask(f"{url}/getCaseCount"))
    numbers = iter(range(1, count + 1))

    async def run_next_cases():
        for number in numbers:
            await run_case(f"{url}/runCase?case={number}&agent=websockets")

    await asyncio.gather(*[run_next_cases() for _ in range(concurrency)])
    await ask(f"{url}/updateReports?agent=websockets")


async def run_case(url):
    try:
        async with websockets.connect(url, proxy=None, extensions=OFFERS, compression=None, **OPTIONS) as socket:
            await echo(socket)
    except (websockets.WebSocketException, OSError):
        # What the case makes of it is in the fuzzing server's report.
        pass


async def ask(url):
    """The only message that comes from there, or None."""
    async with websockets.connect(url, proxy=None, **OPTIONS) as socket:
        try:
            return await socket.recv()
        except websockets.ConnectionClosed:
            return None


logging.getLogger("websockets").setLevel(logging.CRITICAL)
match sys.argv[1:]:
    case ["server"]:
        asyncio.run(serve_echo())
    case ["client", url, concurrency]:
        asyncio.run(run_cases(url, int(concurrency)))
    case _:
        sys.exit(__doc__)
