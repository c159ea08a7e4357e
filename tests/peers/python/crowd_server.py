"""The backend of a crowd: holds so many tunnels, answers the Close of each, and reports what it heard. Argument: how many."""

import sys
from collections import Counter

from crowd import Servers
from reporting import report

# A Close frame with a mask, a code and the text `drained`.
CLOSE_BYTES = 2 + 4 + 2 + 7


def unmasked(frame):
    """A short frame of a client without its mask."""
    if len(frame) < 6 or not frame[1] & 0x80:
        return frame
    return bytes([frame[0], frame[1] & 0x7F, *(byte ^ frame[2 + at % 4] for at, byte in enumerate(frame[6:]))])


def main(count):
    servers = Servers()
    report("listening", port=servers.listener.getsockname()[1])
    servers.serve(count, CLOSE_BYTES, b"\x88\x02\x03\xe9", lambda: report("open", count=count))
    report("closed", heard=Counter(unmasked(member.heard).hex() for member in servers.members))


main(int(sys.argv[1]))
