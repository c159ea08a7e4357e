"""A process that reports what happens to it as JSON lines on one of its outputs."""

import atexit
import json
import subprocess
import threading

PATIENCE_SECONDS = 20


class JsonProcess:
    def __init__(self, command, output):
        """`output` is "stdout" or "stderr": the one that carries the JSON lines."""
        self.command = command
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output == "stdout" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if output == "stderr" else None,
        )
        # Whatever fails, nothing that was started here outlives the tests.
        atexit.register(self.process.kill)
        self.lines = []
        self.events = []
        self.ended = False
        self.news = threading.Condition()
        threading.Thread(target=self._read, args=[getattr(self.process, output)], daemon=True).start()

    def wait_for(self, **wanted):
        """The first event, past or coming, that has these values."""
        with self.news:
            self.news.wait_for(lambda: self.ended or self.saw(**wanted), PATIENCE_SECONDS)
            for event in self.events:
                if wanted.items() <= event.items():
                    return event
        last_lines = "\n".join(self.lines[-40:])
        raise AssertionError(f"{self.command}: no {wanted} in:\n{last_lines}")

    def saw(self, **wanted):
        return any(wanted.items() <= event.items() for event in self.events)

    def signal(self, signal):
        self.process.send_signal(signal)

    def wait(self):
        """Waits until it has ended by itself; gives its exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def stop(self):
        """Asks the process to end; gives its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def kill(self):
        """Ends it by force, whatever state it is in."""
        self.process.kill()
        self.process.wait()

    def _read(self, stream):
        for line in stream:
            event = parse_object(line)
            with self.news:
                self.lines.append(line.decode(errors="replace").rstrip())
                if event is not None:
                    self.events.append(event)
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()


def parse_object(line):
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
