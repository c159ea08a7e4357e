"""An echo server made of `eventlet`: hixie-75, 0, 8 and 13. The README says what it understands and reports."""

import os
import sys

import eventlet
from eventlet import tpool, websocket, wsgi
from legacy_reporting import parameter_of, report, report_message, reset_at_end

VERSIONS = {75: "hixie-75", 76: "0"}


class Serving(websocket.WebSocketWSGI):
    """It answers every subprotocol with itself, of those of which it knows any, and serves a request with `only` in its query
    in that version alone."""

    def __call__(self, environ, start_response):
        only = parameter_of(environ["QUERY_STRING"], "only")
        if only not in (None, environ.get("HTTP_SEC_WEBSOCKET_VERSION")):
            start_response("426 Upgrade Required", [("Sec-WebSocket-Version", only), ("Connection", "close")])
            return []
        offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
        self.supported_protocols = [offered.split(",")[0].strip()] if offered else []
        return super().__call__(environ, start_response)


def converse(socket):
    id = parameter_of(socket.environ["QUERY_STRING"], "id")
    version = VERSIONS.get(socket.version, str(socket.version))
    # It has no subprotocols in hixie-75.
    offered = socket.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
    report("opened", id=id, version=version, subprotocol=offered if version != "hixie-75" else None)
    try:
        if parameter_of(socket.environ["QUERY_STRING"], "greet"):
            socket.send("welcome")
        converse_until_close(socket, id)
    except OSError:
        pass
    finally:
        clean = socket.websocket_closed if version == "0" else None
        # Without a code from the other side this is None, and so it is after an abrupt end.
        data = getattr(socket, "_remote_close_data", None)
        code = int.from_bytes(data[:2], "big") if data else None
        report("closed", id=id, code=code, reason=data[2:].decode() if data else "", clean=clean)


def converse_until_close(socket, id):
    while (message := socket.wait()) is not None:
        report_message(message, id=id)
        if isinstance(message, bytes) or not message.startswith("!"):
            socket.send(message)
            continue
        word, *rest = message.split(" ")
        if word == "!send":
            socket.send(" ".join(rest))
        elif word == "!close" and rest:
            socket.close(*[(int(rest[0]), " ".join(rest[1:]))] if socket.version in (8, 13) else [])
            return
        elif word == "!close":
            return
        elif word == "!abort":
            reset_at_end(socket.socket)
            socket.websocket_closed = True
            socket.socket.close()
            return


def wait_for_end_of_input():
    tpool.execute(sys.stdin.read)
    os._exit(0)


listener = eventlet.listen(("127.0.0.1", 0))
report("listening", port=listener.getsockname()[1])
eventlet.spawn(wait_for_end_of_input)
wsgi.server(listener, Serving(converse), log_output=False, debug=False)
