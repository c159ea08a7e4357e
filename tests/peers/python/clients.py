"""The clients under one interface, so that each case is written once. A message is `str` or `bytes`."""

import asyncio
import itertools
import os

import aiohttp
import websockets

PATIENCE_SECONDS = 30
NO_CODE_RECEIVED = 1005
numbers = itertools.count(1)


def fresh_id(client):
    """An id that no other connection of any test process has."""
    return f"{client}-{os.getpid()}-{next(numbers)}"


class Refused(Exception):
    """The answer to a handshake was no 101."""

    def __init__(self, status, headers):
        super().__init__(status)
        self.status = status
        self.headers = headers


class WebsocketsClient:
    """Python's `websockets`. A version that it is told is a second header line, as it always sends its own."""

    NAME = "websockets"
    CAN = ["send fragments"]

    def __init__(self, url, *, subprotocols=(), deflate=False, version=None, id=None):
        self.id = id or fresh_id(self.NAME)
        self.connecting = websockets.connect(
            f"{url}?id={self.id}",
            subprotocols=list(subprotocols) or None,
            compression="deflate" if deflate else None,
            additional_headers={"Sec-WebSocket-Version": version} if version else None,
            max_size=None,
            ping_interval=None,
            proxy=None,
        )

    async def __aenter__(self):
        try:
            self.socket = await self.connecting
        except websockets.InvalidStatus as refusal:
            raise Refused(refusal.response.status_code, refusal.response.headers) from refusal
        self.subprotocol = self.socket.subprotocol
        self.extensions = self.socket.response.headers.get("Sec-WebSocket-Extensions", "")
        return self

    async def __aexit__(self, *_error):
        await self.socket.close()

    async def send(self, message):
        await self.socket.send(message)

    async def send_fragments(self, first, last):
        """Two fragments with a Ping between them, whose Pong has come when this is done."""
        pong = None

        async def fragments():
            nonlocal pong
            yield first
            pong = await self.socket.ping("between")
            yield last

        await self.socket.send(fragments())
        await pong

    async def receive(self):
        return await asyncio.wait_for(self.socket.recv(), PATIENCE_SECONDS)

    async def ping(self, data):
        """Done when the Pong with this data has come."""
        await asyncio.wait_for(await self.socket.ping(data), PATIENCE_SECONDS)

    async def close(self, code, reason):
        await self.socket.close(code, reason)
        return self.socket.close_code

    async def wait_closed(self):
        await asyncio.wait_for(self.socket.wait_closed(), PATIENCE_SECONDS)
        return self.socket.close_code, self.socket.close_reason


class AiohttpClient:
    """Python's `aiohttp`. A version that it is told is the only one that it sends."""

    NAME = "aiohttp"
    CAN = ["claim another version"]

    def __init__(self, url, *, subprotocols=(), deflate=False, version=None, id=None):
        self.id = id or fresh_id(self.NAME)
        self.url = f"{url}?id={self.id}"
        self.options = {
            "protocols": subprotocols,
            "compress": 15 if deflate else 0,
            "headers": {"Sec-WebSocket-Version": version} if version else {},
            "max_msg_size": 0,
            "autoping": False,
        }

    async def __aenter__(self):
        self.session = aiohttp.ClientSession()
        try:
            self.socket = await self.session.ws_connect(self.url, **self.options)
        except aiohttp.WSServerHandshakeError as refusal:
            await self.session.close()
            raise Refused(refusal.status, refusal.headers) from refusal
        self.subprotocol = self.socket.protocol
        self.extensions = self.socket._response.headers.get("Sec-WebSocket-Extensions", "")
        return self

    async def __aexit__(self, *_error):
        await self.socket.close()
        await self.session.close()

    async def send(self, message):
        if isinstance(message, str):
            await self.socket.send_str(message)
        else:
            await self.socket.send_bytes(message)

    async def receive(self):
        while True:
            message = await self.socket.receive(PATIENCE_SECONDS)
            if message.type is aiohttp.WSMsgType.PING:
                await self.socket.pong(message.data)
            elif message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return message.data
            else:
                raise AssertionError(f"instead of a message: {message}")

    async def ping(self, data):
        """Done when the Pong with this data has come."""
        await self.socket.ping(data.encode())
        message = await self.socket.receive(PATIENCE_SECONDS)
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, data.encode())

    async def close(self, code, reason):
        await self.socket.close(code=code, message=reason.encode())
        return self.socket.close_code

    async def wait_closed(self):
        message = await self.socket.receive(PATIENCE_SECONDS)
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return message.data or NO_CODE_RECEIVED, message.extra


CLIENTS = {client.NAME: client for client in [WebsocketsClient, AiohttpClient]}
