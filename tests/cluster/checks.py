"""What is proven of the mirror, with a real cluster."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from harness import install
from harness.broker import wardent_binary
from harness.process import expect, wait_until
from rig.balancer import Balancer
from rig.kafka import Cluster
from rig.node import Application, Node
from rig.records import PROGRAMS, compare, read, write, writing

# The checks of the short form.
SHORT = ("topics:exactly", "mirror:killed-in-transactions")
# How many records there are in the short form, and in the long one.
FEW, MANY = 10_000, 200_000


class Given:
    """The cluster, and how much is asked."""

    def __init__(self, cluster: Cluster, short: bool) -> None:
        self.cluster = cluster
        self.short = short
        self.records = FEW if short else MANY
        self.deaths = 3 if short else 50

    @contextlib.contextmanager
    def node(self, name: str, **cluster: Any) -> Iterator[Node]:
        """A node that mirrors the topic of its name."""
        node = Node(name, self.cluster.bootstrap, {"mirror": [topic_of(name)], "share": [], **cluster})
        try:
            node.start()
            yield node
        finally:
            node.close()

    def make(self, topic: str, *words: str) -> None:
        """Makes a topic on the cluster by Kafka's own tool, with as many partitions as a client's topic here."""
        tool = "org.apache.kafka.tools.TopicCommand"
        self.cluster.tool(tool, "--create", "--topic", topic, "--partitions", "4", *words)


def topic_of(name: str) -> str:
    return f"shop.{name}"


def settled(node: Node, given: Given, once: bool, deadline_s: float = 120) -> int:
    """Waits until all that the node has is on the cluster, and compares."""
    topic = topic_of(node.node)
    source = read(node.address, topic)
    seen: list[str] = []

    def is_there() -> bool:
        # Reading all of it takes more of the machine than mirroring it.
        time.sleep(0.5)
        try:
            there = {record.origin() for record in read(given.cluster.bootstrap, topic)}
        except AssertionError as error:
            # A cluster that has just been started may not answer everybody yet.
            seen[:] = [str(error)]
            return False
        seen[:] = [f"{len(there)} of {len(source)}"]
        return len(there) >= len(source)

    try:
        wait_until("all is there", is_there, deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}; the mirror: {node.mirror_said()}") from error
    return compare(source, node.node, read(given.cluster.bootstrap, topic), once)


def topics_are_mirrored_exactly(given: Given, once: bool = False) -> None:
    """Keys, partitions, timestamps, headers, and where each comes from; a clean end and a new start repeat nothing."""
    name, delivery = ("exact-once", "exactly-once") if once else ("exact", "at-least-once")
    with given.node(name, delivery=delivery) as node:
        topic, half = topic_of(name), given.records // 2
        write(node.address, topic, 0, half)
        node.start_mirror()
        settled(node, given, once=True)
        node.stop_mirror()
        write(node.address, topic, half, half)
        node.start_mirror()
        settled(node, given, once=True)
        node.stop_mirror()


def a_killed_mirror(given: Given, once: bool) -> str:
    """kill -9, again and again, under a writer: nothing is lost; exactly once, nothing is there twice."""
    name, delivery = ("killed-once", "exactly-once") if once else ("killed", "at-least-once")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    with given.node(name, delivery=delivery) as node:
        topic = topic_of(name)
        rate = 2_000
        write(node.address, topic, 0, 1_000)
        node.start_mirror()
        wait_until("it mirrors", lambda: topic_is_there(given, topic), 60)
        count = int(given.deaths * 1.6 * rate)
        writer = writing(node.address, topic, 1_000, count, rate, node.directory / "writer.out")
        for _ in range(given.deaths):
            time.sleep(chance.uniform(0.05, 1.6))
            node.kill_mirror()
            node.start_mirror()
        code = writer.child.wait(240)
        expect(code == 0, f"the writer: {writer.tail()}")
        again = settled(node, given, once)
        return f"{given.deaths} deaths, {1_000 + count} records, {again} there again (seed {seed})"


def topic_is_there(given: Given, topic: str) -> bool:
    with contextlib.suppress(AssertionError):
        return bool(read(given.cluster.bootstrap, topic))
    return False


def a_broker_is_killed(given: Given) -> None:
    """A leader dies under load: its partitions move, and nothing that was acknowledged is lost."""
    with given.node("broker-dies") as node:
        topic = topic_of(node.node)
        write(node.address, topic, 0, 1_000)
        node.start_mirror()
        wait_until("it mirrors", lambda: topic_is_there(given, topic), 60)
        writer = writing(node.address, topic, 1_000, given.records, 4_000, node.directory / "writer.out")
        time.sleep(1)
        given.cluster.kill(2)
        try:
            expect(writer.child.wait(240) == 0, f"the writer: {writer.tail()}")
            settled(node, given, once=False)
        finally:
            given.cluster.start(2)
        given.cluster.wait_until_whole()


def the_cluster_is_away(given: Given) -> None:
    """All brokers are stopped under load, for a minute in the long form, and started again: everything arrives."""
    with given.node("cluster-away") as node:
        topic = topic_of(node.node)
        write(node.address, topic, 0, 1_000)
        node.start_mirror()
        wait_until("it mirrors", lambda: topic_is_there(given, topic), 60)
        writer = writing(node.address, topic, 1_000, given.records, 4_000, node.directory / "writer.out")
        time.sleep(1)
        given.cluster.stop()
        try:
            time.sleep(5 if given.short else 60)
        finally:
            given.cluster.start()
        expect(writer.child.wait(240) == 0, f"the writer: {writer.tail()}")
        settled(node, given, once=False, deadline_s=180)


def a_refused_topic_stops_alone(given: Given) -> None:
    """One topic that the cluster will not make keeps no other from being mirrored; made by hand, it follows."""
    topics = ["shop.refused", "shop.taken"]
    # More replicas than there are brokers: only what is there already can be written to.
    kafka = {"bootstrap": given.cluster.bootstrap.split(","), "replication": 5}
    with given.node("refuses", mirror=topics, kafka=kafka) as node:
        for topic in topics:
            write(node.address, topic, 0, 1_000)
        given.make("shop.taken")
        node.start_mirror()
        wait_until("the one is mirrored", lambda: len(read(given.cluster.bootstrap, "shop.taken")) == 1_000, 60)
        expect("shop.refused" in node.mirror_said(), "nothing is told of the other")
        given.make("shop.refused")
        wait_until("so is the other", lambda: topic_has(given, "shop.refused", 1_000), 90)
        compare(read(node.address, "shop.taken"), node.node, read(given.cluster.bootstrap, "shop.taken"), True)


def topic_has(given: Given, topic: str, count: int) -> bool:
    with contextlib.suppress(AssertionError):
        return len(read(given.cluster.bootstrap, topic)) >= count
    return False


def what_can_never_be_delivered_is_a_dead_letter(given: Given) -> None:
    """A record that the cluster's topic is too small for: it alone, with its own value, and the rest goes on."""
    with given.node("too-long") as node:
        topic = topic_of(node.node)
        given.make(topic, "--config", "max.message.bytes=20000")
        write(node.address, topic, 0, 20)
        long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=100_000))
        words = ["kcat", "-b", node.address, "-P", "-t", topic, "-p", "0", "-k", "long"]
        subprocess.run(words, input=long, text=True, check=True, timeout=30)
        write(node.address, topic, 20, 20)
        node.start_mirror()
        wait_until("the rest is there", lambda: topic_has(given, topic, 40), 90)
        wait_until("it is a dead letter", lambda: len(read(node.address, "mirror.dead.letter")) == 1, 30)
        (letter,) = read(node.address, "mirror.dead.letter")
        told = dict(letter.headers)
        expect(letter.key == "long" and letter.value == long, "the letter is not the record")
        expect(told["__connect.errors.topic"] == topic, f"it says: {told}")
        seen = [record.value for record in read(given.cluster.bootstrap, topic)]
        expect(all(len(value or "") < 1_000 for value in seen), "the long one is there too")


NODES = ("web-1", "web-2", "web-3")
RATE, BURST = 20, 40
# Between two exchanges, and what an exchange may take on its way over the cluster, on a machine that is busy.
INTERVAL_S, DELAY_S = 0.1, 0.5
POLICY = {
    "mode": "enforce",
    "defaults": {"limit": {"rate": f"{RATE}/s", "burst": BURST, "scope": "cluster"}},
    "routes": [{"name": "trap", "match": {"path": "/.env"}, "trap": True}],
    # A client that is only too fast is limited here, and not banned.
    "bans": {"points": {"rate_limited": 0}},
}


@contextlib.contextmanager
def three_nodes(given: Given) -> Iterator[tuple[list[Node], Balancer]]:
    """Three nodes that share bans and limits, behind one load balancer."""
    with contextlib.ExitStack() as stack:
        application = Application()
        stack.callback(application.close)
        nodes = []
        for name in NODES:
            share = {"mirror": [], "share": ["bans", "limits"]}
            node = Node(name, given.cluster.bootstrap, share, POLICY, application.port)
            stack.callback(node.close)
            node.start()
            node.start_mirror()
            nodes.append(node)
        for node in nodes:
            wait_until(f"{node.node} is connected", lambda of=node: is_connected(of), 60)
        balancer = Balancer([node.http for node in nodes])
        stack.callback(balancer.close)
        balancer.start()
        yield nodes, balancer


def is_connected(node: Node) -> bool:
    told = node.told()
    report = told.get("report") or told.get("mirror") or told
    return bool(report.get("state") == "connected")


def asks(port: int, client: str, path: str = "/") -> str:
    """200, or why not."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"CF-Connecting-IP": client, "Host": "www.example.org"})
        answer = connection.getresponse()
        answer.read()
        return answer.getheader("x-wardent-reason") or str(answer.status)


def a_client_is_one_on_all_nodes(given: Given) -> str:
    """Spread over all nodes, a client is limited and banned as on one; a lifted ban is lifted everywhere."""
    with three_nodes(given) as (nodes, balancer):
        client, begin, said = "198.51.100.7", time.monotonic(), Counter[str]()
        seconds = 5
        while time.monotonic() - begin < seconds:
            said[asks(balancer.port, client)] += 1
        passed = said["200"]
        fair = BURST + RATE * seconds
        over = (len(NODES) - 1) * (BURST + RATE * (INTERVAL_S + DELAY_S))
        expect(passed <= fair + over, f"{passed} passed: {fair} are fair, and {over:.0f} more may be")
        # Each node alone would have let so many pass.
        expect(passed < len(NODES) * fair * 0.8, f"{passed} passed, nearly as if nothing were shared: {said}")
        banned = "198.51.100.66"
        expect(asks(balancer.port, banned, "/.env") == "trap", "the trap is none")
        for node in nodes:
            wait_until(f"banned on {node.node}", lambda of=node: asks(of.http, banned) == "banned", 10)
        lift(nodes[1], banned)
        for node in nodes:
            wait_until(f"lifted on {node.node}", lambda of=node: asks(of.http, banned) == "200", 10)
        return f"{passed} of {sum(said.values())} passed in {seconds} s; {fair} are fair, {over:.0f} more may be"


def lift(node: Node, client: str) -> None:
    command = [wardent_binary(), "bans", "remove", client, "--config", node.config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    expect(done.returncode == 0, done.stdout + done.stderr)


def a_ban_bites_elsewhere_soon(given: Given) -> str:
    """From its being readable in one node's log to its biting on another: median and 99th percentile."""
    count = 50 if given.short else 200
    with three_nodes(given) as (nodes, _):
        one, other = nodes[0], nodes[2]
        command = [install.python("confluent-kafka"), PROGRAMS / "latency.py"]
        words = [f"127.0.0.1:{one.http}", one.address, f"127.0.0.1:{other.http}", str(count)]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=240, check=False)
        expect(done.returncode == 0, done.stderr[-800:])
        spans = sorted(json.loads(done.stdout))
        median, p99 = spans[len(spans) // 2], spans[min(len(spans) - 1, len(spans) * 99 // 100)]
        return f"{count} bans: median {median} ms, p99 {p99} ms, longest {spans[-1]} ms"


def what_mirroring_takes(given: Given) -> str:
    """Processor time of the mirror for each record, and how fast it catches up. It measures, and judges nothing."""
    with given.node("speed") as node:
        topic, count = topic_of(node.node), given.records * 2
        write(node.address, topic, 0, count)
        node.start_mirror()
        assert node.mirror
        begin = time.monotonic()
        wait_until("all is sent", lambda: sent(node) >= count, 240)
        took, used = time.monotonic() - begin, processor_s(node.mirror.pid)
        each_us = used / count * 1e6
        return (
            f"{count} records in {took:.1f} s with the start ({count / took:.0f}/s), "
            f"{each_us:.1f} us of processor each: {each_us * 20_000 / 1e6:.2f} of a core at 20,000/s"
        )


def what_events_take(given: Given) -> str:
    """Bytes of an event on each broker's disk. It measures, and judges nothing."""
    application = Application()
    topic, count = "wardent.http.access", 4_000
    node = Node("sizes", given.cluster.bootstrap, {"mirror": [topic], "share": []}, None, application.port)
    try:
        node.start()
        node.start_mirror()
        wait_until("it is connected", lambda: is_connected(node), 60)
        connection = HTTPConnection("127.0.0.1", node.http, timeout=10)
        begin = time.monotonic()
        for number in range(count):
            client = f"198.51.100.{number % 250}"
            headers = {"CF-Connecting-IP": client, "Host": "www.example.org", "User-Agent": f"Mozilla/5.0 {client}"}
            connection.request("GET", f"/articles/{number}?page={number % 7}", headers=headers)
            connection.getresponse().read()
        rate = count / (time.monotonic() - begin)
        connection.close()
        wait_until("all is sent", lambda: sent(node) >= count, 60)
        records = read(given.cluster.bootstrap, topic)
        plain = sum(len(record.value or "") for record in records) / len(records)
        logs = given.cluster.directory.glob(f"data-1/{topic}-*/*.log")
        packed = sum(log.stat().st_size for log in logs) / len(records)
        return f"at {rate:.0f} events/s: {plain:.0f} bytes of JSON, {packed:.0f} on each broker's disk"
    finally:
        node.close()
        application.close()


def sent(node: Node) -> int:
    report = node.told().get("mirror") or {}
    return sum(topic["sent"] for topic in report.get("topics", []))


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


CHECKS: dict[str, Callable[[Given], str | None]] = {
    "topics:exactly": topics_are_mirrored_exactly,
    "topics:exactly-in-transactions": lambda given: topics_are_mirrored_exactly(given, once=True),
    "mirror:killed": lambda given: a_killed_mirror(given, once=False),
    "mirror:killed-in-transactions": lambda given: a_killed_mirror(given, once=True),
    "topics:refused": a_refused_topic_stops_alone,
    "records:dead-letter": what_can_never_be_delivered_is_a_dead_letter,
    "broker:killed": a_broker_is_killed,
    "cluster:away": the_cluster_is_away,
    "speed:mirror": what_mirroring_takes,
    "speed:sizes": what_events_take,
    "nodes:one-client": a_client_is_one_on_all_nodes,
    "nodes:ban-latency": a_ban_bites_elsewhere_soon,
}
