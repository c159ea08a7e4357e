"""Every server of the matrix, and one gateway in front of them all."""

import json
import sys

from gateway import REPOSITORY, Gateway
from json_process import JsonProcess

PEERS = REPOSITORY / "tests/peers"
INTERPRETERS = {"node": "node", "python": sys.executable}
MATRIX = json.loads((PEERS / "matrix.json").read_text())


class Everything:
    def __init__(self):
        self.servers = {name: start_server(*case["run"]) for name, case in MATRIX["servers"].items()}
        addresses = {name: server.address for name, server in self.servers.items()}
        self.gateway = Gateway(PEERS / "gateway.toml", addresses)

    def url(self, path):
        return f"ws://{self.gateway.address}/{path}"

    def stop(self):
        """Gives the exit code of the gateway."""
        exit_code = self.gateway.stop()
        for server in self.servers.values():
            server.stop()
        return exit_code


class Stage:
    """One server, by its name in the matrix or by how it is run, and a gateway with one route to it; whatever was started
    ends with it."""

    def __init__(self, server, *, tunnel="", drain="", listen="127.0.0.1:0", within=()):
        self.processes = []
        run = MATRIX["servers"][server]["run"] if isinstance(server, str) else server
        self.server = start_server(*run, within=within)
        self.processes.append(self.server)
        words = {"server": self.server.address, "tunnel": tunnel, "drain": drain, "listen": listen}
        self.gateway = Gateway(PEERS / "tunnel.toml", words, within)
        self.processes.append(self.gateway.process)
        self.url = f"ws://{self.gateway.address}/"

    def start_client(self, interpreter, script, first_message, within=()):
        """A client in a process of its own, whose tunnel is open."""
        command = [INTERPRETERS[interpreter], str(PEERS / script), f"{self.url}?id=client", first_message]
        client = JsonProcess([*within, *command], "stdout")
        self.processes.append(client)
        client.wait_for(event="opened")
        self.server.wait_for(event="opened", id="client")
        return client

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for process in self.processes:
            process.kill()
        self.gateway.clear()


def start_server(interpreter, script, *arguments, within=()):
    server = JsonProcess([*within, INTERPRETERS[interpreter], str(PEERS / script), *arguments], "stdout")
    server.address = f"127.0.0.1:{server.wait_for(event='listening')['port']}"
    return server
