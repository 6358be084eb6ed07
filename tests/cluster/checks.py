"""What is proven of the mirror, with a real cluster."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from harness.process import expect, wait_until
from rig.kafka import Cluster
from rig.node import Node
from rig.records import compare, read, write, writing

# How many records, and how many deaths.
SHORT, LONG = 20_000, 200_000


class Given:
    """The cluster, and how much is asked."""

    def __init__(self, cluster: Cluster, short: bool) -> None:
        self.cluster = cluster
        self.short = short
        self.records = SHORT if short else LONG
        self.deaths = 5 if short else 50

    @contextlib.contextmanager
    def node(self, name: str, **cluster: Any) -> Iterator[Node]:
        """A node that mirrors the topic of its name."""
        node = Node(name, self.cluster.bootstrap, {"mirror": [topic_of(name)], "share": [], **cluster})
        try:
            node.start()
            yield node
        finally:
            node.close()


def topic_of(name: str) -> str:
    return f"shop.{name}"


def settled(node: Node, given: Given, once: bool, deadline_s: float = 120) -> int:
    """Waits until all that the node has is on the cluster, and compares."""
    topic = topic_of(node.node)
    source = read(node.address, topic)
    seen: list[str] = []

    def is_there() -> bool:
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


CHECKS: dict[str, Callable[[Given], str | None]] = {
    "topics:exactly": topics_are_mirrored_exactly,
    "topics:exactly-in-transactions": lambda given: topics_are_mirrored_exactly(given, once=True),
    "mirror:killed": lambda given: a_killed_mirror(given, once=False),
    "mirror:killed-in-transactions": lambda given: a_killed_mirror(given, once=True),
    "broker:killed": a_broker_is_killed,
    "cluster:away": the_cluster_is_away,
}
