"""Every server and every client of the matrix, and one gateway between them. Each is started once, when it is first needed."""

import itertools
import json
import re
import sys
from functools import cached_property
from pathlib import Path

from gateway import REPOSITORY, Gateway
from json_process import JsonProcess

LEGACY = Path(__file__).resolve().parent
MATRIX = json.loads((LEGACY / "matrix.json").read_text())
INTERPRETERS = {
    "node": ["node", "--no-deprecation"],
    "perl": ["perl"],
    "python": [str(REPOSITORY / "target/peers/venv-legacy/bin/python"), "-W", "ignore"],
    "ruby": ["ruby"],
}
SCRIPTED_SERVER = [sys.executable, str(LEGACY / "servers/wrong_digest.py")]
PATIENCE_SECONDS = 10
HIXIE = ["0", "hixie-75"]
# Of ASCII alone and without a command at its start; as its length is a prime, a lost, doubled or swapped part shows.
PERIOD = bytes(range(36, 119))
numbers = itertools.count(1)


class Everything:
    def __init__(self):
        self.servers = {name: start(server["run"]) for name, server in MATRIX["servers"].items()}
        self.scripted = JsonProcess(SCRIPTED_SERVER, "stdout")
        self.clients = {}
        for server in [*self.servers.values(), self.scripted]:
            server.address = f"127.0.0.1:{server.wait_for(event='listening')['port']}"

    @cached_property
    def gateway(self):
        return self.start_gateway()

    def start_gateway(self):
        return Gateway(LEGACY / "gateway.toml", {"routes": "".join(self.routes())})

    def routes(self):
        """One for each version of each server, and those of the choices, by their number."""
        route = (LEGACY / "route.toml").read_text()
        for name, versions, address in self.upstreams():
            for binary in ["refuse", "base64"]:
                words = {"name": f"{name}-{binary}", "versions": json.dumps(versions), "server": address, "binary": binary}
                yield re.sub("@([a-z]+)@", lambda match, words=words: words[match[1]], route)

    def upstreams(self):
        for name, server in MATRIX["servers"].items():
            for version in server["versions"]:
                versions = [int(version) if version.isdigit() else version]
                yield f"{name}-{version}", versions, self.servers[name].address
        for number, choice in enumerate(MATRIX["choices"]):
            yield f"choice-{number}", choice["versions"], self.servers[choice["server"]].address
        yield "wrong-digest", [0], self.scripted.address

    def client(self, name, version):
        if (name, version) not in self.clients:
            self.clients[name, version] = start(MATRIX["clients"][name]["run"], version)
        return self.clients[name, version]

    def stop(self):
        """Gives the exit code of the gateway."""
        peers = [*self.clients.values(), *self.servers.values(), self.scripted]
        for peer in peers:
            peer.process.stdin.close()
        assert all(peer.wait() == 0 for peer in peers), "they end by themselves"
        return self.gateway.stop()


def start(run, *arguments):
    interpreter, script = run
    return JsonProcess([*INTERPRETERS[interpreter], str(LEGACY / script), *arguments], "stdout")


class Connection:
    """One connection of a client, and what both sides report of it."""

    def __init__(self, client, server, url, subprotocol=None):
        self.client = client
        self.server = server
        self.id = f"legacy-{next(numbers)}"
        self.first_event = {side: len(side.events) for side in (client, server)}
        self.taken = {}
        separator = "&" if "?" in url else "?"
        offer = {"subprotocol": subprotocol} if subprotocol else {}
        self.tell(open=f"{url}{separator}id={self.id}", id=self.id, **offer)

    def tell(self, **command):
        self.client.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.client.process.stdin.flush()

    def client_hears(self, event):
        return self.next_of(self.client, event)

    def server_hears(self, event):
        return self.next_of(self.server, event)

    def next_of(self, side, event):
        """The next event of this kind that a side reports. What it reports instead of it, such as an end, is an error."""
        place = self.taken.get((side, event), 0)
        self.taken[side, event] = place + 1
        with side.news:

            def found():
                return len(self.events_of(side, event)) > place

            def is_over():
                return side.ended or self.events_of(side, "closed", "refused", "failed")

            side.news.wait_for(lambda: found() or is_over(), PATIENCE_SECONDS)
            if found():
                return self.events_of(side, event)[place]
            heard = self.events_of(side)
        raise AssertionError(f"{side.command}: no {event} number {place + 1} of {self.id}, but {heard}")

    def events_of(self, side, *wanted):
        since = side.events[self.first_event[side] :]
        return [one for one in since if one.get("id") == self.id and (not wanted or one["event"] in wanted)]

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.tell(abort=True)


def text_of(size):
    return (PERIOD * (size // len(PERIOD) + 1))[:size]

