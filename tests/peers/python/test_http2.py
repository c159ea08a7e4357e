"""WebSockets on streams of HTTP/2 (RFC 8441) by Python's `h2`; `websockets` reads and writes the frames."""

import socket

import h2.config
import h2.connection
import h2.events
import h2.settings
from peers import Stage
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

PATIENCE_SECONDS = 20
MIB = 1 << 20


class Client:
    """One connection; its streams by their number."""

    def __init__(self, stage):
        host, port = stage.gateway.address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()
        self.events = []
        self.wait_for(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
        assert self.h2.remote_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def receive(self):
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        self.events += events

    def wait_for(self, wanted):
        while True:
            for at, event in enumerate(self.events):
                if wanted(event):
                    return self.events.pop(at)
            self.receive()

    def request(self, path, version="13"):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a.example")]
        self.h2.send_headers(stream, [*head, (":path", path), ("sec-websocket-version", version)])
        self.flush()
        answer = self.wait_for(lambda e: isinstance(e, h2.events.ResponseReceived) and e.stream_id == stream)
        return stream, dict(answer.headers)

    def send(self, stream, data):
        """As the windows allow."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data))
            if room == 0:
                self.receive()
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()


class Tunnel:
    def __init__(self, client, path):
        self.client = client
        self.stream, head = client.request(path)
        assert head[":status"] == "200", head
        self.frames = Protocol(Side.CLIENT, max_size=None)

    def send(self):
        for data in self.frames.data_to_send():
            if data:
                self.client.send(self.stream, data)

    def receive(self):
        """The next frame."""
        while not (frames := self.frames.events_received()):
            event = self.client.wait_for(
                lambda e: isinstance(e, h2.events.DataReceived | h2.events.StreamEnded) and e.stream_id == self.stream
            )
            assert isinstance(event, h2.events.DataReceived), "the stream ended"
            self.frames.receive_data(event.data)
        return frames[0]

    def echo(self, message):
        self.frames.send_binary(message)
        self.send()
        frame = self.receive()
        assert frame.opcode is Opcode.BINARY
        assert (frame.data == message) is True


def test_tunnels_on_one_connection_echo_and_close():
    with Stage("websockets") as stage:
        client = Client(stage)
        tunnels = [Tunnel(client, f"/?id={number}") for number in range(20)]
        for size in (1, 125, 126, 65535, 65536, MIB):
            tunnels[0].echo(b"x" * size)
        for number, tunnel in enumerate(tunnels):
            tunnel.echo(f"hello {number}".encode())
        for tunnel in tunnels:
            tunnel.frames.send_close(4001, "bye")
            tunnel.send()
            assert tunnel.receive().opcode is Opcode.CLOSE
        stage.server.wait_for(event="closed", code=4001)


def test_a_version_that_is_not_served_gets_400_with_the_list():
    with Stage("websockets") as stage:
        client = Client(stage)
        _, head = client.request("/", version="7")
        assert (head[":status"], head["sec-websocket-version"]) == ("400", "13")
        Tunnel(client, "/?id=after").echo(b"still here")
