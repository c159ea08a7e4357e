"""What a case came to, and which of two outcomes is the worse one."""

import json
from typing import NamedTuple

# From good to bad. Both NON-STRICT and INFORMATIONAL are conformant.
BEHAVIOR = ["OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED", "ERROR"]
CLOSE = ["OK", "INFORMATIONAL", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "FAILED"]


class Verdict(NamedTuple):
    behavior: str
    close: str

    @classmethod
    def of(cls, result):
        return cls(result.behavior.value, result.behavior_close.value)

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


def worse_of(one, other):
    return Verdict(max(one.behavior, other.behavior, key=BEHAVIOR.index), max(one.close, other.close, key=CLOSE.index))


def read_verdicts(file):
    if not file.exists():
        return {}
    return {case: Verdict.parse(text) for case, text in json.loads(file.read_text()).items()}


def write_verdicts(file, verdicts):
    ordered = sorted(verdicts.items(), key=lambda item: [int(part) for part in item[0].split(".")])
    file.write_text(json.dumps({case: str(verdict) for case, verdict in ordered}, indent=0) + "\n")
