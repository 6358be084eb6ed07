"""kill -9 at random moments: nothing that was acknowledged is lost, and nobody has to mend anything.

In every cycle clients ask and an operator bans, until the process is killed in the middle of it. What the
operator was told to be done, and what could be read before the kill, must be there after all of them. In
the end a stranger reads every segment: checksums, offsets without hole or repetition. The long form:

    WARDENT_KILL_CYCLES=200 tests/.venv/bin/pytest -c tests/e2e/pytest.ini --timeout=3600 \\
        tests/e2e/test_log_kills.py
"""

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rig import RawUpstream, Record, Wardent, records, request, wait_until

CYCLES = int(os.environ.get("WARDENT_KILL_CYCLES", "8"))
SEED = int(os.environ.get("WARDENT_KILL_SEED", str(random.SystemRandom().getrandbits(32))))
# From the start of the load to the kill.
ALIVE_S = (0.05, 1.5)
# What is promised for a tail this small is a second; the rest is for a machine that runs other tests.
SERVES_WITHIN_S = 10.0

ACCESS, BAN, AUDIT = "wardent.http.access", "wardent.client.ban", "wardent.audit.event"


def answer(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


class Load:
    """Clients that ask and an operator who bans, each target once, until the process is gone."""

    def __init__(self, wardent: Wardent, addresses: "Addresses") -> None:
        self.wardent, self.addresses = wardent, addresses
        self.socket = str(wardent.directory / "admin.sock")
        self.acknowledged: list[str] = []
        self.is_over = threading.Event()
        work = [self._ban, self._ban, self._ask, self._ask]
        self.threads = [threading.Thread(target=self._until_over, args=(one,)) for one in work]

    def _until_over(self, one: Callable[[], None]) -> None:
        # A connection that breaks off is what a kill looks like from outside.
        with contextlib.suppress(OSError, http.client.HTTPException):
            while not self.is_over.is_set():
                one()

    def _ban(self) -> None:
        target = self.addresses.take()
        wanted = json.dumps({"target": target, "for": "7d", "why": "kill -9"}).encode()
        got = request(self.socket, "/api/v1/bans", "POST", {"Host": "localhost"}, wanted)
        assert got.status == 201, got.text
        self.acknowledged.append(target)

    def _ask(self) -> None:
        headers = {"CF-Connecting-IP": f"198.51.100.{random.randrange(1, 255)}"}
        request(self.wardent.address, "/asked", headers=headers)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


class Addresses:
    """Addresses of the range for benchmarks, each once, for several threads."""

    def __init__(self) -> None:
        self.numbers, self.lock = itertools.count(), threading.Lock()

    def take(self) -> str:
        with self.lock:
            number = next(self.numbers)
        return f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}"


def readable(wardent: Wardent) -> dict[str, int]:
    """How far each partition can be read: its high watermark."""
    topics = wardent.api("log/topics")["topics"]
    return {
        f"{topic['name']}-{partition['partition']}": partition["high_watermark"]
        for topic in topics
        for partition in topic["partitions"]
    }


def bans_of(found: list[Record]) -> dict[str, str]:
    """The state of each ban, by the last record of its key."""
    return {
        record.key: record.value["state"]
        for record in found
        if record.key is not None and record.value is not None
    }


def test_nothing_acknowledged_is_lost_by_kill_9(rig) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    upstream: RawUpstream = rig.raw_upstream(answer)
    wardent: Wardent = rig.wardent(upstream.address, start=False)
    log = Path(wardent.config["log"]["dir"])
    addresses = Addresses()
    acknowledged: list[str] = []
    was_readable: dict[str, int] = {}
    slowest_s = 0.0
    for _ in range(CYCLES):
        begin = time.monotonic()
        wardent.start()
        slowest_s = max(slowest_s, time.monotonic() - begin)
        now_readable = readable(wardent)
        for partition, offset in was_readable.items():
            assert now_readable[partition] >= offset, f"{partition} went back"
        with Load(wardent, addresses) as load:
            time.sleep(rng.uniform(*ALIVE_S))
            with contextlib.suppress(OSError, http.client.HTTPException):
                was_readable = readable(wardent)
            wardent.running.signal(signal.SIGKILL)
            wardent.running.wait()
        acknowledged += load.acknowledged
    wardent.start()
    total = wait_until("bans are counted", lambda: wardent.api("bans?limit=1")["total"])
    assert total >= len(acknowledged)
    wardent.stop()

    state = bans_of(records(log, BAN))
    lost = [target for target in acknowledged if state.get(target) != "banned"]
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged bans are lost: {lost[:5]}"
    told = {record.value["target"] for record in records(log, AUDIT) if record.value.get("target")}
    assert set(acknowledged) <= told
    asked = records(log, ACCESS)
    assert len(asked) >= sum(
        offset for partition, offset in was_readable.items() if partition.startswith(ACCESS)
    )
    assert acknowledged, "nobody was banned between the kills"
    assert slowest_s < SERVES_WITHIN_S
    print(
        f"{CYCLES} kills, {len(acknowledged)} bans acknowledged, 0 lost; {len(asked)} requests in the"
        f" log; the slowest start took {slowest_s:.2f} s"
    )
