#!/usr/bin/env python3
"""Starts `wsgate demo` on free ports, opens one tunnel, has one version refused, asks for one page, and keeps what /metrics says.

live.py DIRECTORY [COMMAND WORD...]   writes metrics.txt and openmetrics.txt to the directory; the command words (such as strace's)
come before the program's own. Exit 0: all of it happened. It knows no metric by name except the few that it waits for.
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
    out = Path(sys.argv[1])
    command = sys.argv[2:] + [BINARY, "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    # A group of its own, so that a tracer that is killed leaves nothing behind.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, **quiet)
    watchdog = threading.Timer(2 * DEADLINE_S, kill_group, (process,))
    watchdog.start()
    try:
        listening, lines = wait_for_listeners(process)
        threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True).start()
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
        wait_for_metric(admin, 'wsgate_tunnels{', 1)
        say_goodbye(tunnel)
        text = wait_for_metric(admin, "wsgate_tunnel_closes_total{", 1)
        (out / "metrics.txt").write_text(text)
        answer = get(admin, "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
        expect("openmetrics-text" in answer.getheader("content-type", ""), "no OpenMetrics by negotiation")
        expect(answer.text.endswith("# EOF\n"), "OpenMetrics does not end in # EOF")
        (out / "openmetrics.txt").write_text(answer.text)
        os.kill(program_pid(process), signal.SIGTERM)
        code = process.wait(DEADLINE_S)
        expect(code == 0, f"exit code {code} after SIGTERM")
    finally:
        watchdog.cancel()
        if process.poll() is None:
            kill_group(process)
        process.wait()


class Failed(Exception):
    pass


def expect(holds, line):
    if not holds:
        raise Failed(line)


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)


def wait_for_listeners(process):
    """-> ({listener: (host, port)}, lines read)"""
    found, lines = {}, []
    for line in process.stderr:
        lines.append(line)
        listening = re.search(r'listening listener="(\w+)" address=(\S+):(\d+)', line)
        if listening:
            found[listening[1]] = (listening[2], int(listening[3]))
        # From here on SIGTERM drains.
        if " ready" in line and {"public", "admin"} <= set(found):
            return found, lines
    raise Failed("the program ended before it listened:\n" + "".join(lines[-10:]))


def program_pid(process):
    """The program itself where a tracer runs it."""
    if len(sys.argv) == 2:
        return process.pid
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    expect(len(children) == 1, f"the tracer has children: {children}")
    return int(children[0])


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
