"""What run, instructions and memory share: the contenders, the load, and the processes of both."""

from __future__ import annotations

import json
import os
import random
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOAD = HERE / "load/target/release/load"
FLOOR = HERE / "load/target/release/floor"

# Every request to every contender carries it, so that all read and forward the same bytes.
SECRET = secrets.token_hex(32)

CONTENDERS = ("wardent", "wardent-bare", "nginx", "haproxy", "floor")


class RigError(Exception):
    """Something a person must see; it ends the program."""


@dataclass(frozen=True)
class Workload:
    """A kind of request: bytes of the answer, bytes of the request's body (0: GET)."""

    title: str
    answer: int
    post: int
    requests: int


WORKLOADS = {
    "get_1k": Workload("GET, 1 KiB answer", 1024, 0, 60_000),
    "get_64k": Workload("GET, 64 KiB answer", 65_536, 0, 20_000),
    "post_16k": Workload("POST of 16 KiB, 64 B answer", 64, 16_384, 40_000),
}


@dataclass(frozen=True)
class Proxy:
    """A contender that is running."""

    pid: int
    port: int


def main(program: Callable[[], int]) -> None:
    """Runs `program`; what it started ends with it, also when it is ended from outside."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The proxies inherit it: as many open files as this user may have.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        sys.exit(program())
    except RigError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


# What must be there


def prepare(names: Sequence[str], wardent: Path | None, *, valgrind: bool = False) -> Path:
    """Installs and builds what `names` need; returns wardent's path, which need not exist if not named."""
    tools = [name for name in ("nginx", "haproxy") if name in names] + ["valgrind"] * valgrind
    install(tools)
    build(HERE / "load")
    if wardent is not None:
        return wardent.resolve()
    if any(name.startswith("wardent") for name in names):
        build(ROOT)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release/wardent"


def install(tools: Sequence[str]) -> None:
    """Installs with apt those of `tools` (named like their packages) that are missing."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    call([*sudo, "apt-get", "update", "-qq"], 300)
    call(
        [*sudo, *quiet, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], 600
    )


def build(package: Path) -> None:
    """Builds a cargo package as it is released."""
    environment = dict(os.environ)
    if package != ROOT:
        # The load's binaries are looked for in its own folder.
        environment.pop("CARGO_TARGET_DIR", None)
    call(["cargo", "build", "--release", "--locked", "--quiet"], 1800, package, environment)


def call(
    command: Sequence[str], seconds: int, cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    try:
        subprocess.run(command, check=True, timeout=seconds, cwd=cwd, env=env)
    except (subprocess.SubprocessError, OSError) as error:
        raise RigError(str(error)) from error


def cores() -> tuple[int, int]:
    """The proxy's core and the load's."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise RigError("needs two cores: one for the proxy, one for the load")
    return allowed[0], allowed[1]


def free_port() -> int:
    """A port below the range from which outgoing connections take theirs."""
    for _ in range(200):
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RigError("no free port between 20000 and 30000")


# The contenders


def command(name: str, wardent: Path, port: int, origin: str, place: Path) -> list[str]:
    """Writes what the contender needs into `place`; returns how to start it in the foreground."""
    values = {"PORT": str(port), "ADMIN": str(free_port()), "ORIGIN": origin, "DIR": str(place)}

    def conf(*sources: str) -> str:
        text = "".join((HERE / "conf" / source).read_text() for source in sources)
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        target = place / sources[0]
        target.write_text(text)
        return str(target)

    if name == "floor":
        return [str(FLOOR), f"127.0.0.1:{port}", origin]
    if name == "nginx":
        return ["nginx", "-e", str(place / "nginx.err"), "-c", conf("nginx.conf")]
    if name == "haproxy":
        return ["haproxy", "-db", "-f", conf("haproxy.cfg")]
    conf("policy.yaml")
    (place / "secret").write_text(SECRET)
    (place / "upstream-secret").write_text(secrets.token_hex(32))
    parts = ["wardent.yaml"] if name == "wardent-bare" else ["wardent.yaml", "wardent-secret.yaml"]
    return [str(wardent), "run", "--config", conf(*parts)]


@contextmanager
def proxy(
    name: str,
    wardent: Path,
    origin: str,
    *,
    prefix: Sequence[str] = (),
    suffix: Sequence[str] = (),
    patience_s: float = 10,
) -> Iterator[Proxy]:
    """A contender, pinned to its core, from its first accepted connection to its end.

    Raises RigError when it takes no connections or has not ended `patience_s` after the request to do so.
    """
    with tempfile.TemporaryDirectory(prefix="wardent-bench-") as place:
        # nginx's worker is another user.
        os.chmod(place, 0o755)
        port = free_port()
        words = [*prefix, *command(name, wardent, port, origin, Path(place)), *suffix]
        with process(
            name, ["taskset", "-c", str(cores()[0]), *words], Path(place), patience_s
        ) as child:
            await_port(child, name, port, Path(place), patience_s)
            yield Proxy(child.pid, port)


@contextmanager
def origin_only(answer: int) -> Iterator[str]:
    """An application without clients; yields its address."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    words = [
        "taskset",
        "-c",
        str(cores()[1]),
        str(LOAD),
        "--origin",
        address,
        "--answer",
        str(answer),
    ]
    with (
        tempfile.TemporaryDirectory(prefix="wardent-bench-") as place,
        process("origin", words, Path(place), 10) as child,
    ):
        await_port(child, "origin", port, Path(place), 10)
        yield address


@contextmanager
def process(
    name: str, words: Sequence[str], place: Path, patience_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in `place`, ended by SIGTERM, and if that does not help by SIGKILL."""
    with open(place / "stdout", "wb") as stdout, open(place / "stderr", "wb") as stderr:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    try:
        yield child
    finally:
        family = pids(child.pid)
        child.terminate()
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            for pid in family:
                os.kill(pid, signal.SIGKILL)
            child.wait()
            raise RigError(f"{name} did not end within {patience_s} s of SIGTERM") from None


def await_port(
    child: subprocess.Popen[bytes], name: str, port: int, place: Path, patience_s: float
) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            # What it still does after its first accept is no part of a request.
            time.sleep(0.25)
            return
    output = "".join((place / file).read_text(errors="replace") for file in ("stdout", "stderr"))
    fate = (
        f"still runs after {patience_s} s" if child.poll() is None else f"ended with {child.poll()}"
    )
    raise RigError(f"{name} takes no connections ({fate})\n{output[-2000:]}")


def pids(pid: int) -> list[int]:
    """A process and its descendants; those that end meanwhile are left out."""
    found, unseen = [], [pid]
    while unseen:
        parent = unseen.pop()
        try:
            lists = [path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children")]
        except OSError:
            continue
        found.append(parent)
        unseen += [int(word) for text in lists for word in text.split()]
    return found


# The load


def load(
    running: Proxy,
    origin: str,
    work: Workload,
    requests: int,
    *,
    connections: int = 64,
    warmup: int = 5_000,
    seconds: int = 120,
) -> dict[str, float]:
    """Sends `requests` after the warm-up and returns load's figures.

    Raises RigError unless every one was answered with 200 and the right length.
    """
    options = {
        "target": f"127.0.0.1:{running.port}",
        "origin": origin,
        "connections": connections,
        "requests": requests,
        "warmup": warmup,
        "answer": work.answer,
        "post": work.post,
        "secret": SECRET,
        "pids": ",".join(map(str, pids(running.pid))),
    }
    words = ["taskset", "-c", str(cores()[1]), str(LOAD)]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RigError(f"load did not end within {seconds} s") from None
    if done.returncode != 0:
        raise RigError(done.stderr.strip() or f"load ended with {done.returncode}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


# What is told


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table: the first column is text, the rest are figures."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows]) + "\n"


def chosen(text: str, possible: Sequence[str]) -> list[str]:
    """The names in a comma-separated list, all of them `possible`."""
    names = text.split(",")
    for name in names:
        if name not in possible:
            raise RigError(f"{name!r} is none of {', '.join(possible)}")
    return names
