"""An echo server made of `aiohttp`. The README beside this folder says what it understands and reports."""

import asyncio

from aiohttp import WSMsgType, web
from reporting import SUBPROTOCOLS, id_of, pattern_of, report, until_input_ends

NO_CODE_RECEIVED = 1005
NO_CLOSE_RECEIVED = 1006


async def converse(request):
    socket = web.WebSocketResponse(protocols=SUBPROTOCOLS, max_msg_size=0, autoping=False)
    await socket.prepare(request)
    id = id_of(request.path_qs)
    extensions = socket.headers.get("Sec-WebSocket-Extensions", "")
    report("opened", id=id, subprotocol=socket.ws_protocol, extensions=extensions)
    code, reason = await converse_until_close(socket)
    report("closed", id=id, code=code, reason=reason)
    return socket


# Gives the code and the reason of the Close that ended the conversation.
async def converse_until_close(socket):
    while True:
        message = await socket.receive()
        if message.type is WSMsgType.CLOSE:
            return message.data or NO_CODE_RECEIVED, message.extra or ""
        if message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return NO_CLOSE_RECEIVED, ""
        if message.type is WSMsgType.TEXT and message.data.startswith("!close"):
            _, code, *reason = message.data.split(" ")
            await socket.close(code=int(code), message=" ".join(reason).encode())
            return socket.close_code, " ".join(reason)
        await answer(socket, message)


async def answer(socket, message):
    match message.type:
        case WSMsgType.TEXT if message.data.startswith("!ping "):
            await socket.ping(message.data.removeprefix("!ping ").encode())
        case WSMsgType.TEXT if message.data.startswith("!send "):
            await socket.send_bytes(pattern_of(int(message.data.removeprefix("!send "))))
        case WSMsgType.TEXT:
            await socket.send_str(message.data)
        case WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        case WSMsgType.PING:
            await socket.pong(message.data)
        case WSMsgType.PONG if message.data:
            await socket.send_str(f"pong {bytes(message.data).decode()}")


async def main():
    application = web.Application()
    application.router.add_get("/{path:.*}", converse)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0)
    await site.start()
    report("listening", port=runner.addresses[0][1])
    await until_input_ends()


asyncio.run(main())
