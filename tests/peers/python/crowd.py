"""Thousands of tunnels in one thread: one side of each, which keeps what it hears behind the handshake, answers it once, and
goes. It knows the handshake, and nothing of frames."""

import enum
import selectors
import socket

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: crowd.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
# Handshakes that are under way together.
AT_ONCE = 200


class Stage(enum.Enum):
    SHAKING_HANDS = enum.auto()
    OPEN = enum.auto()
    ANSWERED = enum.auto()
    GONE = enum.auto()


class Member:
    """One side of one tunnel."""

    def __init__(self, connection):
        self.connection = connection
        self.stage = Stage.SHAKING_HANDS
        self.heard = b""

    def read(self):
        """Keeps what has come. False when nothing more will."""
        try:
            piece = self.connection.recv(4096)
        except ConnectionResetError:
            piece = b""
        self.heard += piece
        return piece != b""

    def take_head(self):
        """The head of the other side's part of the handshake, which does not count as heard; None until it is whole."""
        head, end, behind = self.heard.partition(b"\r\n\r\n")
        if not end:
            return None
        self.heard = behind
        return head


class Crowd:
    def __init__(self):
        self.members = []
        self.counts = dict.fromkeys(Stage, 0)
        self.selector = selectors.DefaultSelector()

    def join(self, connection):
        connection.setblocking(False)
        member = Member(connection)
        self.members.append(member)
        self.counts[member.stage] += 1
        self.selector.register(connection, selectors.EVENT_READ, member)

    def enter(self, member, stage):
        self.counts[member.stage] -= 1
        self.counts[stage] += 1
        member.stage = stage

    def leave(self, member):
        self.selector.unregister(member.connection)
        member.connection.close()
        self.enter(member, Stage.GONE)

    def news(self):
        return [key.data for key, _ in self.selector.select(1)]


class Clients(Crowd):
    def open(self, address, count, check_time):
        while self.counts[Stage.OPEN] < count:
            check_time()
            while len(self.members) < count and self.counts[Stage.SHAKING_HANDS] < AT_ONCE:
                self.connect(address)
            for member in self.news():
                assert member.read(), f"refused: {member.heard}"
                if (head := member.take_head()) is not None:
                    assert head.startswith(b"HTTP/1.1 101 "), head
                    self.enter(member, Stage.OPEN)

    def connect(self, address):
        connection = socket.socket()
        # Several source addresses, so that ports are not what runs out.
        connection.bind((f"127.0.1.{1 + len(self.members) % 8}", 0))
        connection.connect(address)
        connection.sendall(UPGRADE)
        self.join(connection)

    def hear_out(self, expected, answer, on_heard, check_time):
        """Until all are gone. Whoever has heard what is expected answers it and waits for the end of its connection."""
        while self.counts[Stage.GONE] < len(self.members):
            check_time()
            for member in self.news():
                if not member.read():
                    self.leave(member)
                elif member.stage is Stage.OPEN and len(member.heard) >= len(expected):
                    self.enter(member, Stage.ANSWERED)
                    on_heard()
                    member.connection.sendall(answer)


class Servers(Crowd):
    def __init__(self):
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)

    def serve(self, count, bytes_expected, answer, on_all_open):
        """Until that many have come and gone. Whoever has heard enough answers it and closes first, as servers do."""
        while self.counts[Stage.GONE] < count:
            for member in self.news():
                if member is None:
                    self.accept()
                elif not member.read():
                    self.leave(member)
                elif member.stage is Stage.SHAKING_HANDS and member.take_head() is not None:
                    member.connection.sendall(SWITCHING)
                    self.enter(member, Stage.OPEN)
                    if self.counts[Stage.OPEN] == count:
                        on_all_open()
                elif member.stage is Stage.OPEN and len(member.heard) >= bytes_expected:
                    self.enter(member, Stage.ANSWERED)
                    member.connection.sendall(answer)
                    member.connection.shutdown(socket.SHUT_WR)

    def accept(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                self.join(connection)
        except BlockingIOError:
            pass
