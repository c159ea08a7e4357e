"""What the servers of Python share: reports as JSON lines, and how a connection ends in the rudest way."""

import hashlib
import json
import socket
import struct
from urllib.parse import parse_qs

TEXT_SHOWN_BYTES = 200


def report(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


def report_message(message, **details):
    binary = isinstance(message, bytes)
    data = message if binary else message.encode()
    shown = {"text": message} if not binary and len(data) <= TEXT_SHOWN_BYTES else {}
    report("message", **details, binary=binary, bytes=len(data), sha1=hashlib.sha1(data).hexdigest(), **shown)


def parameter_of(query, name):
    return parse_qs(query).get(name, [None])[0]


def reset_at_end(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
