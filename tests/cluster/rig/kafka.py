"""A Kafka cluster: three nodes, each broker and controller (KRaft), replication 3, two in-sync replicas."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from harness import install
from harness.process import REPOSITORY, Child, expect, free_port, wait_until

NODES = (1, 2, 3)
# What the sample says holds here too, but for what a test on one small machine has otherwise.
SAMPLE = REPOSITORY / "ops/kafka/server.properties"
SETTINGS = {
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
    "group.initial.rebalance.delay.ms": 0,
    # A broker that is killed is missed soon.
    "broker.session.timeout.ms": 6000,
    "broker.heartbeat.interval.ms": 1000,
    "num.network.threads": 2,
    "num.io.threads": 2,
    "log.cleaner.dedupe.buffer.size": 2097152,
    "log.cleaner.threads": 1,
}


def sample() -> dict[str, str]:
    """The settings of the sample."""
    lines = [line for line in SAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class Cluster:
    """All of it, with files of its own; ports stay the same over a restart."""

    def __init__(self, settings: Mapping[str, object] = {}) -> None:
        self.jars = install.java().jars
        self.directory = Path(tempfile.mkdtemp(prefix="kafka-cluster-"))
        self.ports = {node: free_port() for node in NODES}
        self.children: dict[int, Child] = {}
        controllers = {node: free_port() for node in NODES}
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items())
        for node in NODES:
            address = f"PLAINTEXT://127.0.0.1:{self.ports[node]}"
            own = {
                "node.id": node,
                "controller.quorum.voters": voters,
                "listeners": f"{address},CONTROLLER://127.0.0.1:{controllers[node]}",
                "advertised.listeners": address,
                "log.dirs": self.directory / f"data-{node}",
            }
            lines = [f"{name}={value}\n" for name, value in {**sample(), **SETTINGS, **own, **settings}.items()]
            self.properties(node).write_text("".join(lines))

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports.values())

    def properties(self, node: int) -> Path:
        return self.directory / f"server-{node}.properties"

    def start(self, *nodes: int) -> None:
        """Starts these nodes, or all, and waits until each takes connections."""
        chosen = nodes or NODES
        if not (self.directory / "data-1").exists():
            self.format()
        for node in chosen:
            words = ["java", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", self.jars]
            output = self.directory / f"kafka-{node}.out"
            self.children[node] = Child([*words, "kafka.Kafka", self.properties(node)], output)
        for node in chosen:
            self.children[node].ready(f"broker {node} takes connections", lambda n=node: self.is_open(n), 120)

    def format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for node in NODES:
            words = ["java", "-XX:TieredStopAtLevel=1", "-cp", self.jars, "kafka.tools.StorageTool", "format"]
            words += ["-t", cluster, "-c", str(self.properties(node))]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            expect(done.returncode == 0, done.stderr)

    def is_open(self, node: int) -> bool:
        socket.create_connection(("127.0.0.1", self.ports[node]), 1).close()
        return True

    def kill(self, *nodes: int) -> None:
        """kill -9, these nodes or all."""
        for node in nodes or NODES:
            self.children[node].kill()

    def stop(self) -> None:
        """Asks all of them to end, as an operator does."""
        for child in self.children.values():
            child.child.terminate()
        for child in self.children.values():
            child.stop(30)

    def close(self) -> None:
        for child in self.children.values():
            child.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def tool(self, name: str, *words: str, stdin: str = "", seconds: int = 90) -> str:
        """What one of Kafka's console tools says. It must end well."""
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", self.jars, name]
        command += ["--bootstrap-server", self.bootstrap, *words]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
        expect(done.returncode == 0, f"{name} {' '.join(words)}: {done.stdout[-800:]}{done.stderr[-800:]}")
        return done.stdout

    def is_whole(self) -> bool:
        """Whether every partition has all its replicas in sync."""
        told = self.tool("org.apache.kafka.tools.TopicCommand", "--describe", "--under-replicated-partitions")
        return not told.strip()

    def wait_until_whole(self) -> None:
        wait_until("every replica is in sync", self.is_whole, 120)
