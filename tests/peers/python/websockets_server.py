"""An echo server made of `websockets`. The README beside this folder says what it understands and reports."""

import asyncio
import logging

from reporting import SUBPROTOCOLS, id_of, pattern_of, report, until_input_ends
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def converse(socket):
    id = id_of(socket.request.path)
    extensions = socket.response.headers.get("Sec-WebSocket-Extensions", "")
    report("opened", id=id, subprotocol=socket.subprotocol, extensions=extensions)
    try:
        async for message in socket:
            if isinstance(message, str) and message.startswith("!"):
                word, *rest = message.split(" ")
                await COMMANDS[word](socket, *rest)
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    finally:
        # A message that meets the end of the connection may fail in other ways than that it is closed.
        await socket.wait_closed()
        report("closed", id=id, code=socket.close_code, reason=socket.close_reason)


async def ping(socket, data):
    await (await socket.ping(data))
    await socket.send(f"pong {data}")


async def fragments(socket, *parts):
    async def with_ping_before_the_last():
        for part in parts[:-1]:
            yield part
        await socket.ping("between")
        yield parts[-1]

    await socket.send(with_ping_before_the_last())


async def send(socket, size, fragments=None):
    whole = pattern_of(int(size))
    if fragments is None:
        await socket.send(whole)
    else:
        each = len(whole) // int(fragments)
        await socket.send(whole[start : start + each] for start in range(0, len(whole), each))


async def stream(socket, size):
    message = pattern_of(int(size))
    while True:
        await socket.send(message)
        # As long as all is taken at once, sending leaves no time for anything else, such as a Close that comes.
        await asyncio.sleep(0)


async def close(socket, code, *reason):
    await socket.close(int(code), " ".join(reason))


COMMANDS = {"!ping": ping, "!fragments": fragments, "!send": send, "!stream": stream, "!close": close}


# By itself `websockets` refuses a client that offers no subprotocol to a server that knows some.
def choose_subprotocol(_socket, offered):
    return next((one for one in SUBPROTOCOLS if one in offered), None)


async def main():
    # Clients that vanish are part of the tests; what they leave behind is no news.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    async with serve(
        converse,
        "127.0.0.1",
        0,
        subprotocols=SUBPROTOCOLS,
        select_subprotocol=choose_subprotocol,
        max_size=None,
        ping_interval=None,
    ) as server:
        report("listening", port=server.sockets[0].getsockname()[1])
        await until_input_ends()


asyncio.run(main())
