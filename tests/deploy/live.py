#!/usr/bin/env python3
"""The real program, as far as deploy/ is concerned. Exit 0: all of it happened.

live.py demo DIRECTORY [COMMAND WORD...]       starts `wsgate demo` on free ports, opens one tunnel, has one version refused, asks
                                               for one page, and writes what /metrics says: metrics.txt and openmetrics.txt
live.py hand-over DIRECTORY [COMMAND WORD...]  starts `wsgate run`, a successor that takes its sockets, and listens as a service
                                               manager would

The command words (such as strace's) come before the program's own. It knows no metric by name except the few that it waits for.
"""

import base64
import http.client
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("WSGATE_BIN", str(ROOT / "target/debug/wsgate"))
KEY = base64.b64encode(b"the sample nonce").decode()
DEADLINE_S = 30


def main():
    what, out, tracer = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    {"demo": demo, "hand-over": hand_over}[what](out, tracer)


class Program:
    """A run of the program, in a group of its own, so that a tracer that is killed leaves nothing behind."""

    def __init__(self, tracer, words, environment=None):
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        environment = os.environ | (environment or {})
        command = tracer + [BINARY] + words
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment, **quiet)
        self.traced = bool(tracer)
        self.lines = []
        self.watchdog = threading.Timer(2 * DEADLINE_S, self.kill)
        self.watchdog.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.watchdog.cancel()
        if self.process.poll() is None:
            self.kill()
        self.process.wait()

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for_line(self, part):
        for line in self.process.stderr:
            self.lines.append(line)
            if part in line:
                return
        raise Failed(f"the program ended before it said `{part}`:\n" + "".join(self.lines[-10:]))

    def wait_until_ready(self):
        """-> {listener: (host, port)}"""
        self.wait_for_line(" ready")
        threading.Thread(target=self.lines.extend, args=(self.process.stderr,), daemon=True).start()
        found = re.findall(r'listening listener="(\w+)" address=(\S+):(\d+)', "".join(self.lines))
        return {name: (host, int(port)) for name, host, port in found}

    def pid(self):
        """The program itself where a tracer runs it."""
        if not self.traced:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        expect(len(children) == 1, f"the tracer has children: {children}")
        return int(children[0])

    def signal(self, number):
        os.kill(self.pid(), number)

    def expect_end(self, after):
        code = self.process.wait(DEADLINE_S)
        expect(code == 0, f"exit code {code} after {after}")


def demo(out, tracer):
    with Program(tracer, ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]) as program:
        listening = program.wait_until_ready()
        demo, admin = listening["public"], listening["admin"]
        expect(get(admin, "/healthz").status == 200, "/healthz is not 200")
        expect(get(admin, "/readyz").status == 200, "/readyz is not 200")
        refused, connection = upgrade(demo, "8")
        connection.close()
        expect(refused.startswith("HTTP/1.1 426 "), f"version 8 got: {refused.splitlines()[0]}")
        expect("sec-websocket-version: 13" in refused.lower(), "the 426 does not name version 13")
        expect(get(demo, "/").status < 500, "the page failed")
        head, tunnel = upgrade(demo, "13")
        expect(head.startswith("HTTP/1.1 101 "), f"version 13 got: {head.splitlines()[0]}")
        echo(tunnel)
        wait_for_metric(admin, "wsgate_tunnels{", 1)
        say_goodbye(tunnel)
        text = wait_for_metric(admin, "wsgate_tunnel_closes_total{", 1)
        (out / "metrics.txt").write_text(text)
        answer = get(admin, "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
        expect("openmetrics-text" in answer.getheader("content-type", ""), "no OpenMetrics by negotiation")
        expect(answer.text.endswith("# EOF\n"), "OpenMetrics does not end in # EOF")
        (out / "openmetrics.txt").write_text(answer.text)
        program.signal(signal.SIGTERM)
        program.expect_end("SIGTERM")


def hand_over(out, tracer):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    manager.bind(str(out / "notify"))
    manager.settimeout(DEADLINE_S)
    config = out / "wsgate.toml"
    config.write_text(RUN_CONFIG.format(socket=out / "run/upgrade.sock"))
    service = {"NOTIFY_SOCKET": str(out / "notify"), "INVOCATION_ID": "1"}
    first = Program(tracer, ["run", "-c", str(config)], service | {"WATCHDOG_USEC": "200000"})
    with first:
        admin = first.wait_until_ready()["admin"]
        expect_message(manager, "READY=1")
        with Program(tracer, ["run", "--upgrade", "-c", str(config)], service) as second:
            second.wait_for_line(" waiting for SIGQUIT to the running process")
            first.signal(signal.SIGQUIT)
            expect(second.wait_until_ready()["admin"] == admin, "the successor is not where the first one was")
            expect_message(manager, f"MAINPID={second.pid()}")
            first.expect_end("SIGQUIT")
            expect_message(manager, "WATCHDOG=1")
            expect(get(admin, "/readyz").status == 200, "/readyz is not 200 after the hand-over")
            second.signal(signal.SIGTERM)
            expect_message(manager, "STOPPING=1")
            second.expect_end("SIGTERM")


RUN_CONFIG = """
[gateway]
upgrade_socket = "{socket}"
[admin]
listen = "127.0.0.1:0"
[[listener]]
name = "public"
listen = "127.0.0.1:0"
[[route]]
name = "app"
upstream = "app"
[[upstream]]
name = "app"
servers = ["127.0.0.1:9"]
"""


def expect_message(manager, beginning):
    """Past those that the watchdog is fed with."""
    while True:
        message = manager.recv(4096).decode()
        if message.startswith(beginning):
            return
        expect(message == "WATCHDOG=1\n", f"`{message}` instead of `{beginning}`")


class Failed(Exception):
    pass


def expect(holds, line):
    if not holds:
        raise Failed(line)


def get(address, path, headers=None):
    connection = http.client.HTTPConnection(*address, timeout=DEADLINE_S)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


def upgrade(address, version):
    """-> (the answer's head, the connection behind it)"""
    s = socket.create_connection(address, timeout=DEADLINE_S)
    lines = [
        "GET /echo HTTP/1.1",
        f"Host: {address[0]}:{address[1]}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Version: {version}",
        f"Sec-WebSocket-Key: {KEY}",
        f"Origin: http://{address[0]}:{address[1]}",
    ]
    s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = s.recv(1)
        expect(byte, f"version {version}: the connection ended in the head: {head!r}")
        head += byte
    return head.decode("latin-1"), s


def echo(s):
    """One masked text frame there (RFC 6455 §5.2), some frame back."""
    mask, text = b"\x01\x02\x03\x04", b"hello"
    s.sendall(struct.pack("!BB", 0x81, 0x80 | len(text)) + mask + bytes(c ^ mask[i % 4] for i, c in enumerate(text)))
    expect(s.recv(1), "no echo")


def say_goodbye(s):
    """Close 1000 (RFC 6455 §5.5.1), then whatever comes until the other side is gone."""
    s.sendall(struct.pack("!BB4xH", 0x88, 0x82, 1000))
    while s.recv(4096):
        pass
    s.close()


def wait_for_metric(admin, prefix, at_least):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        text = get(admin, "/metrics").text
        if sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(prefix)) >= at_least:
            return text
        time.sleep(0.02)  # the pace of asking; the deadline is above
    raise Failed(f"`{prefix}…` did not reach {at_least}")


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError, subprocess.TimeoutExpired) as problem:
        raise SystemExit(str(problem))
