"""An echo server made of `tornado` 3.2.2, of 2014: 0, 7, 8 and 13. The README says what it understands and reports."""

import collections
import collections.abc
import logging
import sys

from legacy_reporting import parameter_of, report, report_message, reset_at_end

# It is older than the Python that runs it: the names moved.
collections.MutableMapping = collections.abc.MutableMapping

import tornado.httpserver  # noqa: E402
import tornado.ioloop  # noqa: E402
import tornado.iostream  # noqa: E402
import tornado.netutil  # noqa: E402
import tornado.web  # noqa: E402
import tornado.websocket  # noqa: E402

write_bytes = tornado.iostream.BaseIOStream.write


# The end of a connection of version 0 is written as a text, which was one of bytes in Python 2.
def write(stream, data, callback=None):
    return write_bytes(stream, data.encode("latin-1") if isinstance(data, str) else data, callback)


tornado.iostream.BaseIOStream.write = write


class Conversation(tornado.websocket.WebSocketHandler):
    subprotocol = None

    def allow_draft76(self):
        return True

    def select_subprotocol(self, offered):
        self.subprotocol = offered[0] or None
        return self.subprotocol

    def open(self):
        self.id = parameter_of(self.request.query, "id")
        version = self.request.headers.get("Sec-WebSocket-Version", "0")
        report("opened", id=self.id, version=version, subprotocol=self.subprotocol)
        if parameter_of(self.request.query, "greet"):
            self.write_message("welcome")

    def on_message(self, message):
        report_message(message, id=self.id)
        if isinstance(message, bytes) or not message.startswith("!"):
            self.write_message(message, binary=isinstance(message, bytes))
            return
        word, *rest = message.split(" ")
        if word == "!ping":
            self.ping(rest[0].encode())
        elif word == "!send":
            self.write_message(" ".join(rest))
        elif word == "!close":
            self.close()
        elif word == "!abort":
            reset_at_end(self.stream.socket)
            self.stream.close()

    def on_pong(self, data):
        if data:
            self.write_message(f"pong {data.decode()}")

    # It knows no code of a Close, and where it closes itself it does not call `on_close`.
    def on_connection_close(self):
        super().on_connection_close()
        report("closed", id=self.id, code=None)


# Clients that vanish are part of the tests; what they leave behind is no news.
logging.getLogger("tornado").setLevel(logging.CRITICAL)
sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
server = tornado.httpserver.HTTPServer(tornado.web.Application([("/.*", Conversation)]))
server.add_sockets(sockets)
report("listening", port=sockets[0].getsockname()[1])
loop = tornado.ioloop.IOLoop.instance()
loop.add_handler(sys.stdin.fileno(), lambda *_: sys.exit(0), loop.READ)
loop.start()
