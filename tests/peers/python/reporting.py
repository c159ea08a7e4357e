"""What processes of Python share: reports as JSON lines, and an end as soon as whoever started them is gone."""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

SUBPROTOCOLS = ["chat.v2", "chat.v1"]


def report(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


def id_of(path):
    return parse_qs(urlsplit(path).query).get("id", [None])[0]


def pattern_of(size):
    """Bytes in which a lost, doubled or swapped part shows: the length of the period is a prime."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def until_input_ends():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
