"""Two network namespaces with a wire between them that can be cut. It needs root, and fails without."""

import itertools
import os
import subprocess

numbers = itertools.count(1)

# Of the block that is for documentation (RFC 5737); nobody outside of the namespaces sees it.
GATEWAY = "192.0.2.1"
CLIENT = "192.0.2.2"


class Network:
    """`near` and `far` are commands that run another one in the gateway's namespace and in the client's."""

    def __init__(self):
        name = f"wsgate-{os.getpid()}-{next(numbers)}"
        self.names = [f"{name}-near", f"{name}-far"]
        self.near, self.far = (["ip", "netns", "exec", name] for name in self.names)

    def __enter__(self):
        near, far = self.names
        for name in self.names:
            ip("netns", "add", name)
        ip("-n", near, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", far)
        for name, address in [(near, GATEWAY), (far, CLIENT)]:
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            for link in ["lo", "wire"]:
                ip("-n", name, "link", "set", link, "up")
        return self

    def __exit__(self, *_error):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def cut(self):
        """Neither side is told: what is on its way is lost, and so is all that follows."""
        ip("-n", self.names[1], "link", "set", "wire", "down")


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
