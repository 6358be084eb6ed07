"""The snippets of docs/kafka.md, run as they stand there but for the address, the file names and the traffic."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import install
from harness.broker import Broker, Wardent, wardent_binary
from harness.process import REPOSITORY, Child, Missing, expect, free_port, wait_until

PAGE = REPOSITORY / "docs/kafka.md"
ADDRESS = "127.0.0.1:9092"

Check = Callable[[Broker], None]


def blocks(language: str) -> list[str]:
    """All blocks of a language in the page."""
    parts = PAGE.read_text().split("```")[1::2]
    return [part.removeprefix(f"{language}\n") for part in parts if part.startswith(f"{language}\n")]


def wardent(broker: Broker) -> Wardent:
    if not isinstance(broker, Wardent):
        raise Missing("only Wardent has the topics that docs/kafka.md reads")
    install.tool("jq")
    return broker


@contextlib.contextmanager
def traffic(broker: Wardent) -> Iterator[None]:
    """Requests, some of them refused, for as long as somebody watches."""
    over = threading.Event()

    def ask() -> None:
        for number in itertools.count():
            if over.wait(0.05):
                return
            path = "/.env" if number % 4 == 0 else f"/page/{number}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", broker.http, timeout=5)
                # Each from another address, for a trap bans who steps into it.
                client = f"198.51.{number // 250 % 100}.{number % 250 + 1}"
                connection.request("GET", path, headers={"CF-Connecting-IP": client})
                connection.getresponse().read()
                connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def await_output(command: Sequence[str | Path], telling: str, directory: Path, seconds: float = 40) -> str:
    """Runs what never ends until it has said what `telling` matches."""
    output = directory / "said"
    child = Child(command, output, cwd=directory)
    try:
        wanted = re.compile(telling, re.MULTILINE)
        child.ready(f"`{telling}` is said", lambda: wanted.search(output.read_text(errors="replace")), seconds)
        return output.read_text(errors="replace")
    except AssertionError as error:
        raise type(error)(f"{error}\n{child.tail()}") from None
    finally:
        child.kill()


def shell(command: str, directory: Path) -> str:
    """What a command of the page says; every part of it must succeed."""
    done = subprocess.run(
        ["bash", "-c", f"set -eo pipefail\n{command}"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expect(done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-500:]}{done.stderr[-1_500:]}")
    return done.stdout


# Words by which a command is known, and what it must print.
SAYS = {
    '.verdict == "refused"': r"^ *\d+ trap$",
    'select(.event == "access") | .client': r"^ *\d+ 198\.51\.",
    "-t wardent.client.ban": r"^198\.51\.\S+\t\{",
    " -L": r'topic "wardent.http.access" with 4 partitions',
    " -Q ": r"wardent\.http\.access \[0\] offset -?\d+",
    "shop.order.paid -P": r"",
    "shop.order.paid -C": r'^order-7 \{"total": 12\}$',
}


def commands(broker: Broker) -> None:
    """Everything a person types."""
    install.kcat()
    here = wardent(broker)
    with tempfile.TemporaryDirectory(prefix="wardent-page-") as name:
        directory = Path(name)
        lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(("kcat", "echo"))]
        live, *rest = [line.replace(ADDRESS, here.address) for line in lines]
        with traffic(here):
            await_output(["bash", "-c", live], r'^\{"client":"198\.51\.\S+","method":"GET"', directory)
        for line in rest:
            (telling,) = [telling for word, telling in SAYS.items() if word in line]
            said = wait_for_it(line, telling, directory)
            expect(re.search(telling, said, re.MULTILINE), f"{line}\nsays {said[:500]!r}")
    expect(len(lines) == len(SAYS) + 1, f"the page has {len(lines)} commands")


def wait_for_it(line: str, telling: str, directory: Path) -> str:
    """A record is there milliseconds after its request: asked twice, a command has had the time."""
    end = time.monotonic() + 10
    while True:
        said = shell(line, directory)
        if re.search(telling, said, re.MULTILINE) or time.monotonic() > end:
            return said


def program(language: str, word: str, start: Callable[[Path], list[str]], telling: str) -> Check:
    """A check of the one program of the page that names `word`."""

    def check(broker: Broker) -> None:
        here = wardent(broker)
        (source,) = [block for block in blocks(language) if word in block]
        with tempfile.TemporaryDirectory(prefix="wardent-page-") as name:
            directory = Path(name)
            file = directory / f"program.{'mjs' if language == 'js' else 'py'}"
            file.write_text(source.replace(ADDRESS, here.address))
            command = start(file)
            with traffic(here):
                await_output(command, telling, directory)

    return check


def with_node(file: Path) -> list[str]:
    # Imports are looked for beside the file.
    (file.parent / "node_modules").symlink_to(install.node() / "node_modules")
    return [install.tool("node"), str(file)]


def clickhouse(broker: Broker) -> None:
    """The tables, with events of the log put into the first by hand: chDB has no Kafka engine."""
    interpreter, here = install.python("chdb"), wardent(broker)
    with traffic(here):
        wait_until("events are there", lambda: len(events(here)) > 20, 20)
    with tempfile.TemporaryDirectory(prefix="wardent-page-") as name:
        directory = Path(name)
        (directory / "events.jsonl").write_text("\n".join(events(here)))
        (statements,) = blocks("sql")
        queue = re.sub(r"ENGINE = Kafka SETTINGS.*?;", "ENGINE = Null;", statements, flags=re.DOTALL)
        expect(queue != statements, "the page shows no table of the engine Kafka")
        fill = "INSERT INTO access_queue FROM INFILE 'events.jsonl' FORMAT JSONEachRow"
        asked = [*(part for part in queue.split(";") if part.strip()), fill]
        ask = (
            "import json, sys\nfrom chdb.session import Session\nsession = Session()\n"
            "session.query('CREATE DATABASE page'); session.query('USE page')\n"
            "for statement in json.load(open('statements.json')):\n    session.query(statement)\n"
            "print(session.query('SELECT count(), min(status), max(length(client)) FROM access', 'CSV'))\n"
        )
        (directory / "statements.json").write_text(json.dumps(asked))
        done = subprocess.run(
            [interpreter, "-c", ask], cwd=directory, capture_output=True, text=True, timeout=120, check=False
        )
        expect(done.returncode == 0, done.stderr[-2_000:])
        count, status, length = (int(word) for word in done.stdout.strip().split(","))
        expect(count > 20 and status >= 200 and length > 8, done.stdout)


def events(broker: Wardent) -> list[str]:
    """The access events in the log."""
    reading = ("-C", "-q", "-e", "-o", "beginning", "-t", "wardent.http.access")
    done = subprocess.run(
        [install.kcat(), "-b", broker.address, *reading], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.splitlines()


def connect(broker: Broker) -> None:
    """Kafka Connect's worker with the file sink."""
    java, jars, here = install.tool("java"), install.java().jars, wardent(broker)
    worker, sink = blocks("properties")
    with tempfile.TemporaryDirectory(prefix="wardent-page-") as name:
        directory = Path(name)
        # Its own port is another's on a machine that runs Connect.
        port = f"listeners=http://127.0.0.1:{free_port()}\noffset.flush.interval.ms=1000\n"
        (directory / "worker.properties").write_text(worker.replace(ADDRESS, here.address) + port)
        (directory / "sink.properties").write_text(sink)
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        child = Child(
            [java, "-XX:TieredStopAtLevel=1", "-cp", jars, main, "worker.properties", "sink.properties"],
            directory / "said",
            cwd=directory,
        )
        requests = directory / "requests.txt"
        try:
            with traffic(here):
                child.ready("requests are in the file", lambda: "client=198.51." in requests.read_text(), 90)
        finally:
            child.kill()


def groups(broker: Broker) -> None:
    """`wardent log groups` knows the group of the page's program."""
    here = wardent(broker)
    CHECKS["confluent-kafka"](broker)
    command = [wardent_binary(), "log", "groups", "--config", here.config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    expect(done.returncode == 0 and "refusals" in done.stdout, done.stdout + done.stderr)


CHECKS: dict[str, Check] = {
    "kcat": commands,
    "confluent-kafka": program(
        "python",
        "confluent_kafka",
        lambda file: [str(install.python("confluent-kafka")), str(file)],
        r"^20\S+Z 198\.51\.\S+ trap$",
    ),
    "kafka-python": program(
        "python",
        "from kafka import",
        lambda file: [str(install.python("kafka-python-3.0.12")), str(file)],
        r"^GET /page/\d+ 50\d$",
    ),
    "kafkajs": program("js", "kafkajs", with_node, r"^50\d /page/\d+$"),
    "clickhouse": clickhouse,
    "connect": connect,
    "groups": groups,
}
