"""Starts the gateway under test with a configuration made from a template, and waits until it listens."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from json_process import PATIENCE_SECONDS, JsonProcess

REPOSITORY = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("WSGATE_BIN", str(REPOSITORY / "target/debug/wsgate"))


class Gateway:
    """Listens at `address`. `words` are what stands between @ signs in the template; `within` is a command that runs
    another one somewhere else, such as in a network namespace."""

    def __init__(self, template, words, within=()):
        self.within = list(within)
        self.directory = tempfile.mkdtemp(prefix="wsgate-peers-")
        words = {**words, "directory": self.directory}
        file = Path(self.directory) / "wsgate.toml"
        file.write_text(re.sub("@([a-z]+)@", lambda match: words[match[1]], template.read_text()))
        self.process = JsonProcess([*within, BINARY, "run", "-c", str(file)], "stderr")
        self.admin = self.process.wait_for(message="listening", listener="admin")["address"]
        self.address = self.process.wait_for(message="listening", listener="public")["address"]
        self.process.wait_for(message="ready")

    def metric(self, series):
        """The value of one series of `/metrics`, labels in the order of the exposition; 0 when it is not there."""
        for line in self.metrics().splitlines():
            if line.startswith(f"{series} "):
                return float(line.removeprefix(f"{series} "))
        return 0.0

    def metrics(self):
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "10", f"http://{self.admin}/metrics"]
        return subprocess.run([*self.within, *command], check=True, capture_output=True, text=True).stdout

    def wait_for_metric(self, series, wanted):
        """Waits until `wanted` holds for the value of a series."""
        return wait_until(lambda: self.metric(series), wanted, series)

    def closed_tunnels(self):
        """The records of tunnels that have ended."""
        file = Path(self.directory) / "access.log"
        # A line that is still being written has no line feed.
        lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [record for record in map(json.loads, lines) if record["event"] == "closed"]

    def wait_for_end(self):
        """The record of the only tunnel, once it has ended and nothing of it is left."""
        [record] = wait_until(self.closed_tunnels, lambda records: records, "the record of an end")
        self.wait_for_metric('wsgate_tunnels{route="r",upstream="u",version="13"}', lambda open: open == 0)
        self.wait_for_metric('wsgate_connections{listener="public"}', lambda open: open == 0)
        return record

    def begin_drain(self):
        self.process.signal(signal.SIGTERM)
        self.process.wait_for(message="draining")

    def stop(self):
        """Drains it; gives its exit code."""
        exit_code = self.process.stop()
        self.clear()
        return exit_code

    def wait(self):
        """Waits until it has ended by itself; gives its exit code."""
        return self.process.wait()

    def clear(self):
        shutil.rmtree(self.directory)


def wait_until(look, wanted, what):
    """Looks again and again until `wanted` holds for what there is, and gives that."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not wanted(found := look()):
        assert time.monotonic() < until, f"{what} is {found}"
        time.sleep(0.02)
    return found
