"""A server of version 0 that has not understood the keys: whatever it is asked, its 16 bytes are wrong."""

import json
import socketserver
import sys
import threading

ANSWER = (
    b"HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Origin: http://client.example\r\nSec-WebSocket-Location: ws://server.example/\r\n\r\n"
    b"sixteen bytes!!!"
)
KEY3_BYTES = 8


class Mistaken(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.rfile.read(KEY3_BYTES)
        self.wfile.write(ANSWER)
        # Until the other side has gone.
        self.rfile.read()


server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mistaken)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"event": "listening", "port": server.server_address[1]}), flush=True)
sys.stdin.read()
