"""One server process: started with its output in a file, ended by its pid."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[3]
POLL_S = 0.02

# Below the range from which the kernel picks the ports of outgoing connections.
PORTS = range(18_000, 32_000)
given_ports: set[int] = set()


def free_port() -> int:
    """A port on which nothing listens, given out once."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in given_ports:
            with contextlib.suppress(OSError), socket.socket() as probe:
                # As servers do: a port that only has closed connections left is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                given_ports.add(port)
                return port
    raise RuntimeError("no free port")


def wait_until(what: str, probe: Callable[[], T | None], deadline_s: float = 15.0) -> T:
    """The first true value of `probe`; connection errors count as "not yet"."""
    end = time.monotonic() + deadline_s
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            if value := probe():
                return value
            last = None
        except (OSError, EOFError) as error:
            last = error
        time.sleep(POLL_S)
    raise AssertionError(
        f"not within {deadline_s} s: {what}" + (f" ({last})" if last else "")
    )


class Process:
    """A child in a process group of its own."""

    # For the report of a failed test: everything that runs, or did in this test.
    started: list["Process"] = []

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        directory: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.output = directory / f"{name}.out"
        with self.output.open("ab") as output:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **(env or {})},
                pass_fds=pass_fds,
                start_new_session=True,
            )
        Process.started.append(self)

    @property
    def pid(self) -> int:
        return self.child.pid

    def text(self) -> str:
        """All it has said."""
        return self.output.read_text(errors="replace")

    def ready(self, probe: Callable[[], object], deadline_s: float = 20.0) -> Self:
        """Waits for the probe; a process that has ended will never be ready."""

        def alive() -> bool:
            code = self.child.poll()
            assert code is None, f"{self.name} ended with {code}:\n{self.text()}"
            return bool(probe())

        wait_until(f"{self.name} is ready", alive, deadline_s)
        return self

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self, deadline_s: float = 20.0) -> int:
        """Its exit code."""
        return self.child.wait(deadline_s)

    def stop(self) -> None:
        """Ends it: asks first, then insists, for it and for children it may have left."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
