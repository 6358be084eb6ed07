"""Children with their output in a file, ended by their pid; waits with a deadline; free ports."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[3]
POLL_S = 0.02

# Below the range from which the kernel picks the ports of outgoing connections.
PORTS = range(18_000, 32_000)
given_ports: set[int] = set()


class Failed(AssertionError):
    """A check that does not hold; its text says what was there instead."""


class Missing(Exception):
    """Something foreign that cannot be had on this machine; its text says what and why."""


def expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


def free_port() -> int:
    """A port on which nothing listens, given out once."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in given_ports:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                given_ports.add(port)
                return port
    raise Failed("no free port")


def wait_until(what: str, probe: Callable[[], T | None], deadline_s: float) -> T:
    """The first true value of `probe`."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := probe():
            return value
        time.sleep(POLL_S)
    raise Failed(f"not within {deadline_s:.0f} s: {what}")


class Child:
    """A process in a group of its own, so that what it starts ends with it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        output: Path,
        env: Mapping[str, str] = {},
        cwd: Path | None = None,
    ) -> None:
        self.output = output
        with output.open("ab") as said:
            self.child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def tail(self, lines: int = 30) -> str:
        """The last it has said."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])

    def ready(self, what: str, probe: Callable[[], object], deadline_s: float) -> None:
        """Waits for the probe; a process that has ended will never be ready."""

        def alive() -> bool:
            code = self.child.poll()
            expect(code is None, f"{what}: ended with {code}\n{self.tail()}")
            with contextlib.suppress(OSError):
                return bool(probe())
            return False

        wait_until(what, alive, deadline_s)

    def kill(self) -> None:
        """kill -9, for it and all it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(10)

    def stop(self, patience_s: float = 15) -> None:
        """Asks first, then insists."""
        if self.child.poll() is None:
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(patience_s)
        self.kill()
