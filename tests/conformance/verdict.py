"""What a case came to, which of two verdicts is the worse one, and what the gateway had to do with it."""

import json
from typing import NamedTuple

# From good to bad. Both NON-STRICT and INFORMATIONAL are conformant.
BEHAVIOR = ["OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED", "ERROR"]
CLOSE = ["OK", "INFORMATIONAL", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "FAILED"]

# The reasons of `docs/reasons.md` that a Close of the gateway's own can have in these runs.
ENDED_BY_GATEWAY = ("client-frame-broken", "backend-frame-broken")


class Verdict(NamedTuple):
    behavior: str
    close: str

    @classmethod
    def parse(cls, text):
        return cls(*text.split(", "))

    def __str__(self):
        return ", ".join(self)

    def is_worse_than(self, other):
        return self.badness[0] > other.badness[0] or self.badness[1] > other.badness[1]

    @property
    def badness(self):
        return BEHAVIOR.index(self.behavior), CLOSE.index(self.close)


class Outcome(NamedTuple):
    verdict: Verdict
    # By a Close of the gateway's own.
    was_ended: bool
    # By the gateway: no peer of these runs sends Pings by itself.
    was_pinged: bool

    @classmethod
    def of(cls, result):
        was_pinged = any(event[0] == "ping" for event in result.received)
        behavior = behavior_without_pings(result) if was_pinged else result.behavior.value
        was_ended = result.remote_close_reason in ENDED_BY_GATEWAY
        return cls(Verdict(behavior, result.behavior_close.value), was_ended, was_pinged)


def behavior_without_pings(result):
    """What the case would have come to had it not written down the Pings: it accepts certain lists of events, and a
    Ping is an event."""
    events = [event for event in result.received if event[0] != "ping"]
    return min(
        [behavior for behavior, accepted in result.expected.items() if accepted == events],
        key=BEHAVIOR.index,
        default=result.behavior.value,
    )


def worse_of(one, other):
    return Verdict(max(one.behavior, other.behavior, key=BEHAVIOR.index), max(one.close, other.close, key=CLOSE.index))


def read_verdicts(file):
    if not file.exists():
        return {}
    return {case: Verdict.parse(text) for case, text in json.loads(file.read_text()).items()}


def write_verdicts(file, verdicts):
    ordered = sorted(verdicts.items(), key=lambda item: [int(part) for part in item[0].split(".")])
    file.write_text(json.dumps({case: str(verdict) for case, verdict in ordered}, indent=0) + "\n")
