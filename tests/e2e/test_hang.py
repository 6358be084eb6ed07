"""A planted hang is seen, reported and ended within seconds; a legal standstill is not mistaken for one.

One thread is stopped by ptrace, as nothing from inside could: it holds what it holds and does nothing
more. Each test takes a quarter of a minute, most of which is waiting. The long form is twenty rounds, and
half an hour of load:

    WARDENT_HANG_ROUNDS=20 WARDENT_HANG_LOAD_S=1800 \\
        tests/.venv/bin/pytest -c tests/e2e/pytest.ini tests/e2e/test_hang.py
"""

import contextlib
import ctypes
import errno
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rig import RawUpstream, Wardent, request, wait_until
from rig.client import open_socket

ROUNDS = int(os.environ.get("WARDENT_HANG_ROUNDS", "1"))
IP = "198.51.100.7"

# What is promised, counted from the moment at which the thread stops.
RED_WITHIN_S = 6.0
GONE_WITHIN_S = 15.0
SERVING_WITHIN_S = 20.0

# How long the whole process stands still: longer than the alarm takes.
STANDSTILL_S = 8.0
# The watchdog looks once a second.
LOOKS_S = 3.0

# <sys/ptrace.h> and <bits/waitflags.h>
PTRACE_ATTACH = 16
WAIT_ALL = 0x4000_0000  # __WALL: threads that are no children, too

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Stopped:
    """One thread of a process, stopped for good. Only the thread that made this may ask it."""

    def __init__(self, task: int) -> None:
        self.task, self.is_gone = task, False
        if libc.ptrace(PTRACE_ATTACH, task, None, None) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        os.waitpid(task, WAIT_ALL)

    def reap(self) -> bool:
        """Whether it is gone: its tracer has to take note, or the process would stay as a zombie."""
        while not self.is_gone:
            try:
                task, status = os.waitpid(self.task, WAIT_ALL | os.WNOHANG)
            except ChildProcessError:
                self.is_gone = True
                break
            if task == 0:
                break
            self.is_gone = os.WIFSIGNALED(status) or os.WIFEXITED(status)
        return self.is_gone


def task_named(pid: int, name: str) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [task for task in tasks if (task / "comm").read_text().strip() == name]
    assert len(found) == 1, f"{len(found)} threads are called {name}"
    return int(found[0].name)


class Monitor:
    """Answers pings, and remembers when each came."""

    def __init__(self, rig) -> None:
        self.heard = list[float]()
        self.address = rig.raw_upstream(self._hear).address

    def _hear(self, connection: socket.socket, head: bytes) -> None:
        self.heard.append(time.monotonic())
        answer(connection, head)

    def config(self) -> dict:
        url = "http://%s:%d/ping" % self.address
        return {"telemetry": {"ping": {"url": url, "interval": "1s"}}}


class Supervisor:
    """Starts Wardent again when it has ended, as systemd does, and remembers how it ended."""

    def __init__(self, wardent: Wardent) -> None:
        self.wardent, self.ends = wardent, list[int]()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self.is_over.wait(0.05):
            code = self.wardent.running.child.poll()
            if code is not None:
                self.ends.append(code)
                self.wardent.start()

    def __enter__(self) -> "Supervisor":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.thread.join()


@pytest.fixture(scope="module")
def may_trace() -> None:
    """Skips where the system lets nobody stop a thread of another process."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            Stopped(sleeper.pid)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            pytest.skip("ptrace is refused here (EPERM): run as root, or with CAP_SYS_PTRACE")
        finally:
            sleeper.kill()


def answer(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


@pytest.fixture
def upstream(rig) -> RawUpstream:
    return rig.raw_upstream(answer)


def serves(wardent: Wardent, client: str = IP) -> bool:
    headers = {"CF-Connecting-IP": client}
    return request(wardent.address, headers=headers, timeout_s=1).status == 200


def hang(wardent: Wardent, thread: str) -> None:
    """One round: stops a thread and follows what becomes of it."""
    pid = wardent.running.pid
    reports = set(wardent.directory.glob("hang-*.txt"))
    with Supervisor(wardent) as supervisor:
        stopped = Stopped(task_named(pid, thread))
        begin = time.monotonic()

        def within(what: str, bound_s: float, probe: Callable[[], bool]) -> float:
            left_s = begin + bound_s - time.monotonic()
            wait_until(what, probe, left_s)
            return time.monotonic() - begin

        red_s = within(
            "/livez is red", RED_WITHIN_S, lambda: wardent.ask_admin("/livez").status == 503
        )
        gone_s = within(
            "it has ended", GONE_WITHIN_S, lambda: stopped.reap() and bool(supervisor.ends)
        )
        assert supervisor.ends == [-signal.SIGABRT]
        again_s = within("it serves again", SERVING_WITHIN_S, lambda: serves(wardent))
    print(f"{thread}: red after {red_s:.1f} s, gone {gone_s:.1f} s, serving {again_s:.1f} s")
    (report,) = set(wardent.directory.glob("hang-*.txt")) - reports
    # State `t` is "stopped by a tracer" (proc_pid_stat(5)).
    assert re.search(rf"^  \d+ {thread}: state t,", report.read_text(), re.M), report.read_text()


@pytest.mark.timeout(60 + 40 * ROUNDS)
@pytest.mark.usefixtures("may_trace")
def test_a_stopped_thread_is_noticed_reported_and_ended(rig, upstream: RawUpstream) -> None:
    threads = ["worker-0", "owner"]
    wardents = [rig.wardent(upstream.address) for _ in threads]

    def rounds(wardent: Wardent, thread: str) -> None:
        for _ in range(ROUNDS):
            hang(wardent, thread)

    with ThreadPoolExecutor(len(threads)) as pool:
        list(pool.map(rounds, wardents, threads))


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("may_trace")
@pytest.mark.parametrize("thread", ["worker-0", "owner", "watchdog"])
def test_the_monitor_hears_no_more_of_one_that_hangs(
    rig, upstream: RawUpstream, thread: str
) -> None:
    """The monitor calls when it hears nothing: nothing must come while something hangs."""
    monitor = Monitor(rig)
    wardent = rig.wardent(upstream.address, config=monitor.config())
    wait_until("the monitor hears of it", lambda: len(monitor.heard) >= 2)
    stopped = Stopped(task_named(wardent.running.pid, thread))
    begin = time.monotonic()
    # The alarm takes 5 s and the next look; what a watchdog that hangs found last counts for 5 s.
    silent_from_s = 8.0
    # One that hangs ends itself after 10 s; one whose watchdog hangs is systemd's to end.
    until_s = silent_from_s + 4.0
    while time.monotonic() < begin + until_s and not stopped.reap():
        time.sleep(0.1)
    late = [heard - begin for heard in monitor.heard if heard - begin > silent_from_s]
    assert not late, f"heard {late} s after {thread} stopped"
    if not stopped.is_gone:
        os.kill(wardent.running.pid, signal.SIGKILL)
        wait_until("it has ended", stopped.reap)


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_a_standstill_of_the_whole_process_is_no_hang(rig, upstream: RawUpstream) -> None:
    wardent = rig.wardent(upstream.address)
    pid = wardent.running.pid
    for _ in range(ROUNDS):
        wardent.running.signal(signal.SIGSTOP)
        time.sleep(STANDSTILL_S)
        wardent.running.signal(signal.SIGCONT)
        wait_until("it serves again", lambda: serves(wardent))
        end = time.monotonic() + LOOKS_S
        while time.monotonic() < end:
            assert wardent.running.child.poll() is None, wardent.output()
            wait_until("/livez is green", lambda: wardent.ask_admin("/livez").status == 200)
            time.sleep(0.1)
        assert "\nwardent_hang_alarms_total 0\n" in wardent.metrics()
    assert wardent.running.pid == pid


@pytest.mark.timeout(60)
def test_a_listener_that_nobody_here_reaches_is_no_hang(rig, upstream: RawUpstream) -> None:
    """The watchdog finds no way to a passed socket that has no path; its clients do."""
    name = f"\0wardent-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen(128)
        wardent = rig.wardent(upstream.address, start=False)
        wardent.start(listener_fd=listener.fileno())
        end = time.monotonic() + GONE_WITHIN_S
        while time.monotonic() < end:
            assert wardent.running.child.poll() is None, wardent.output()
            assert wardent.ask_admin("/livez").status == 200
            time.sleep(0.25)
        assert request(name, headers={"CF-Connecting-IP": IP}).status == 200
    assert "no way to" in wardent.output()


@contextlib.contextmanager
def running(*deeds: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Does each of the deeds again and again, on a thread of its own, until the end."""
    is_over, failures = threading.Event(), list[BaseException]()

    def repeat(deed: Callable[[], None]) -> None:
        while not is_over.is_set():
            try:
                deed()
            except OSError:
                # Who is refused or cut off comes again.
                is_over.wait(0.05)
            except BaseException as failure:
                failures.append(failure)
                raise

    threads = [threading.Thread(target=repeat, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


# How long the worst legal load lasts. The alarm takes 5 s.
LOAD_S = float(os.environ.get("WARDENT_HANG_LOAD_S", "15"))
CONNECTIONS = 64


@pytest.mark.timeout(120 + LOAD_S)
def test_the_worst_legal_load_is_no_hang(rig) -> None:
    def slow_answer(connection: socket.socket, head: bytes) -> None:
        # Takes what comes, as slowly as it can be told from nothing, and answers at its end.
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while connection.recv(4096):
                time.sleep(0.01)
        answer(connection, head)

    wardent = rig.wardent(
        rig.raw_upstream(slow_answer).address,
        config={"max_connections": CONNECTIONS},
        policy={"defaults": {"limit": {"rate": "5/s", "burst": 5}}},
    )

    def crawl() -> None:
        """A head that never ends."""
        with open_socket(wardent.address) as sock:
            for byte in b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Slow: " + b"a" * 200:
                sock.sendall(bytes([byte]))
                time.sleep(0.02)

    def upload_slowly() -> None:
        with open_socket(wardent.address) as sock:
            sock.sendall(
                b"POST / HTTP/1.1\r\nHost: shop.test\r\nCF-Connecting-IP: 198.51.100.8\r\n"
                b"Content-Length: 8000000\r\n\r\n"
            )
            for _ in range(200):
                sock.sendall(b"a" * 40_000)
                time.sleep(0.01)

    def idle() -> None:
        """Keep-alive connections that say nothing: no other may come."""
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS // 2):
                stack.enter_context(open_socket(wardent.address))
            time.sleep(1)

    def hurry() -> None:
        """More often than allowed, so that limits refuse and a ban begins."""
        serves(wardent)

    deeds = [crawl] * 8 + [upload_slowly] * 4 + [idle] * 2 + [hurry] * 4
    with running(*deeds) as failures:
        end = time.monotonic() + LOAD_S
        while time.monotonic() < end:
            assert wardent.running.child.poll() is None, wardent.output()
            assert wardent.ask_admin("/livez").status == 200
            time.sleep(0.25)
    assert not failures
    assert "\nwardent_hang_alarms_total 0\n" in wardent.metrics()
    wait_until("it serves as before", lambda: serves(wardent, "198.51.100.9"))
