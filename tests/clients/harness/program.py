"""A program for one client, and what it says; tests/clients/README.md has the contract."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness import install
from harness.broker import Broker
from harness.process import Failed, expect

START_S = 60


class Record(NamedTuple):
    """One as a consumer has it."""

    partition: int
    offset: int
    timestamp: int
    key: str
    value: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.key, self.value


def pair(number: int) -> tuple[str, str]:
    """Key and value of the record of this number, as every program makes them."""
    return f"key-{number % 997}", f"value-{number}"


def pairs(first: int, count: int) -> Counter[tuple[str, str]]:
    return Counter(pair(number) for number in range(first, first + count))


@dataclass(frozen=True)
class Client:
    """A client as the checks see it."""

    name: str
    # How its program starts; installs first what is missing.
    command: Callable[[], list[str]]
    codecs: tuple[str, ...]
    # Retries of its producer are known as such by the broker.
    is_idempotent: bool = True
    # Its producer outlives a broker that is away.
    goes_on: bool = True
    # Records that it commits and does not show when it is told to end: kcat drops the one that it has in hand.
    drops: int = 0
    # Of the short form too.
    is_short: bool = False


def python(name: str, program: str, of: str | None = None) -> Callable[[], list[str]]:
    path = install.PROGRAMS / "python" / program
    return lambda: [str(install.python(of or name)), str(path)]


def own_python(program: str) -> Callable[[], list[str]]:
    def command() -> list[str]:
        install.kcat()
        return [install.tool("python3"), str(install.PROGRAMS / "python" / program)]

    return command


def node_22(program: str) -> list[str]:
    place = install.node()
    return [str(place / "node_modules/.bin/node"), str(place / program)]


def node_own(program: str) -> list[str]:
    # The codec is compiled for the node that has installed it.
    return [install.tool("node"), str(install.node() / program)]


EVERY = ("none", "gzip", "snappy", "lz4", "zstd")

CLIENTS = (
    # kcat ends when no broker is left.
    Client("kcat", own_python("kcat.py"), EVERY, goes_on=False, drops=1, is_short=True),
    Client("confluent-kafka", python("confluent-kafka", "confluent.py"), EVERY, is_short=True),
    Client("kafka-python-3.0.12", python("kafka-python-3.0.12", "dpkp.py"), EVERY, is_short=True),
    Client("aiokafka", python("aiokafka", "aio.py"), EVERY, is_short=True),
    Client("kafka-python-2.3.0", python("kafka-python-2.3.0", "dpkp.py"), EVERY),
    Client(
        "kafka-python-2.0.2",
        python("kafka-python-2.0.2", "dpkp.py"),
        ("none", "gzip", "lz4"),
        is_idempotent=False,
    ),
    Client("kafkajs", lambda: node_own("kafkajs.mjs"), ("none", "gzip", "lz4")),
    Client("platformatic", lambda: node_22("platformatic.mjs"), EVERY),
    Client("java", lambda: [install.tool("java"), "-cp", install.java().program, "Client"], EVERY),
    Client("franz-go", lambda: [str(install.franz_go())], EVERY),
)


class Program:
    """One that runs; a thread takes what it says as it comes."""

    def __init__(self, client: Client, broker: Broker, command: str, topic: str, **options: Any):
        self.what = f"{client.name} {command}"
        words = [*client.command(), command, "--bootstrap", broker.address, "--topic", topic]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        self.complaints = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            start_new_session=True,
        )
        self.records: list[Record] = []
        self.acked: dict[int, tuple[int, int]] = {}
        self.offsets: dict[int, int] = {}
        # Where it would go on, by what the broker has confirmed.
        self.committed: dict[int, int] = {}
        self.assigned: list[int] | None = None
        self.done: int | None = None
        self.left = False
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.child.stdout
        for line in self.child.stdout:
            try:
                fact = json.loads(line)
            except ValueError:
                # A killed program may have said half a line.
                continue
            with self.news:
                self._take(fact)
                self.news.notify_all()

    def _take(self, fact: dict[str, Any]) -> None:
        (name, value), *_ = fact.items()
        match name:
            case "record":
                self.records.append(Record(*value))
            case "acked":
                number, partition, offset = value
                self.acked[number] = (partition, offset)
            case "offset":
                self.offsets[value[0]] = value[1]
            case "committed":
                self.committed.update({partition: offset for partition, offset in value})
            case "assigned":
                self.assigned = value
            case "done":
                self.done = value
            case "left":
                self.left = True
            case _:
                raise Failed(f"{self.what} says {fact}")

    def wait(self, what: str, holds: Callable[[], object], deadline_s: float) -> None:
        """Until it has said what makes `holds` true."""
        end = time.monotonic() + deadline_s
        with self.news:
            while not holds():
                code = self.child.poll()
                if code is not None and not self.reader.is_alive():
                    raise Failed(f"{self.what} ended with {code} before {what}\n{self.tail()}")
                if time.monotonic() > end:
                    raise Failed(f"{self.what}: not within {deadline_s:.0f} s: {what}\n{self.tail()}")
                self.news.wait(0.1)

    def finish(self, deadline_s: float = START_S, good: tuple[int, ...] = (0,)) -> Program:
        """Waits for its end, which must be a good one."""
        try:
            code = self.child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            said = f"{self.what} has not ended within {deadline_s:.0f} s; {self.told()}\n{self.tail()}"
            self.kill()
            raise Failed(said) from None
        self.reader.join(10)
        expect(code in good, f"{self.what} ended with {code}; {self.told()}\n{self.tail()}")
        return self

    def told(self) -> str:
        return f"{len(self.records)} records, {len(self.acked)} acknowledged, has {self.assigned}"

    def leave(self) -> Program:
        """SIGTERM: an orderly end."""
        self.child.terminate()
        # 143 is how the JVM ends after SIGTERM, whatever its hooks did.
        self.finish(30, good=(0, 143))
        expect(self.left, f"{self.what} has not said that it left")
        return self

    def die(self) -> None:
        """kill -9 of the client: it says goodbye to nobody. What it had said to us before is heard."""
        pid = self.child.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for client in children or [str(pid)]:
            os.kill(int(client), signal.SIGKILL)
        self.child.wait(10)
        self.reader.join(10)

    def kill(self) -> None:
        """Ends it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(10)
        self.reader.join(10)

    def tail(self) -> str:
        """The last of its complaints."""
        self.complaints.seek(0)
        return "\n".join(self.complaints.read().splitlines()[-15:])
