"""Starts the gateway under test with a configuration made from a template, and waits until it listens."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from json_process import JsonProcess

REPOSITORY = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("WSGATE_BIN", str(REPOSITORY / "target/debug/wsgate"))


class Gateway:
    """Listens at `address`. `words` are what stands between @ signs in the template."""

    def __init__(self, template, words):
        self.directory = tempfile.mkdtemp(prefix="wsgate-peers-")
        words = {**words, "directory": self.directory}
        file = Path(self.directory) / "wsgate.toml"
        file.write_text(re.sub("@([a-z]+)@", lambda match: words[match[1]], template.read_text()))
        self.process = JsonProcess([BINARY, "run", "-c", str(file)], "stderr")
        self.process.wait_for(message="listening", listener="admin")
        self.address = self.process.wait_for(message="listening", listener="public")["address"]

    def stop(self):
        """Drains it; gives its exit code."""
        exit_code = self.process.stop()
        shutil.rmtree(self.directory)
        return exit_code
