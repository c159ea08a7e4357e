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


def start_server(interpreter, script):
    server = JsonProcess([INTERPRETERS[interpreter], str(PEERS / script)], "stdout")
    server.address = f"127.0.0.1:{server.wait_for(event='listening')['port']}"
    return server
