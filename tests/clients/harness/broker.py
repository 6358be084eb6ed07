"""What is asked: Wardent, or a real Apache Kafka to prove the checks themselves by."""

from __future__ import annotations

import abc
import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from harness import install
from harness.process import REPOSITORY, Child, Missing, expect, free_port


class Broker(abc.ABC):
    """One broker with files of its own, on loopback; the port stays the same over a restart."""

    name = "broker"

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-clients-"))
        self.port = free_port()
        self.child: Child | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @abc.abstractmethod
    def start(self) -> None:
        """Starts it and waits until it takes connections."""

    def kill(self) -> None:
        """kill -9."""
        assert self.child
        self.child.kill()

    def close(self) -> None:
        """Ends it, with all it has kept."""
        if self.child:
            self.child.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def takes_connections(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True

    def tail(self) -> str:
        return self.child.tail() if self.child else ""


def wardent_binary() -> Path:
    """`WARDENT_BIN`, or the newest that cargo has built."""
    if named := os.environ.get("WARDENT_BIN"):
        return Path(named)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    built = [target / profile / "wardent" for profile in ("release", "debug")]
    found = [path for path in built if path.exists()]
    if not found:
        raise Missing("no wardent binary: `cargo build --release` first, or set WARDENT_BIN")
    return max(found, key=lambda path: path.stat().st_mtime)


class Wardent(Broker):
    """The binary, with its log open to Kafka's clients and an upstream that is not there."""

    name = "wardent"

    def __init__(self, log: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.http, self.admin = free_port(), free_port()
        self.config = self.directory / "wardent.yaml"
        settings: dict[str, Any] = {
            "listen": [f"127.0.0.1:{self.http}"],
            "upstream": {"servers": [f"127.0.0.1:{free_port()}"]},
            "client_ip": {"trusted_peers": ["127.0.0.1/32"], "missing": "peer"},
            "policy": "policy.yaml",
            "log": {"dir": str(self.directory / "log"), "listen": self.address, **(log or {})},
            "admin": {
                "listen": f"127.0.0.1:{self.admin}",
                "socket": str(self.directory / "admin.sock"),
            },
        }
        # JSON is YAML.
        self.config.write_text(json.dumps(settings))
        policy = {
            "mode": "enforce",
            "defaults": {"limit": {"rate": "100000/s", "burst": 100_000}},
            # For events that tell a refusal, and for bans.
            "routes": [{"name": "trap", "match": {"path": "/.env"}, "trap": True}],
        }
        (self.directory / "policy.yaml").write_text(json.dumps(policy))

    def start(self) -> None:
        command = [wardent_binary(), "run", "--config", self.config]
        self.child = Child(command, self.directory / "wardent.out")
        self.child.ready("wardent takes Kafka's connections", self.is_ready, 30)

    def is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.admin}/readyz"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200) and self.takes_connections()


class Kafka(Broker):
    """Apache Kafka from its jars: one KRaft node, set as Wardent is where that can be chosen."""

    name = "kafka"

    def __init__(self) -> None:
        super().__init__()
        self.jars = install.java().jars
        controller = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.directory / "data",
            "num.partitions": 4,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        self.properties = self.directory / "server.properties"
        self.properties.write_text("".join(lines))

    def start(self) -> None:
        words = ["java", "-Xmx768m", "-cp", self.jars]
        if not (self.directory / "data").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            formatting = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", self.properties]
            done = subprocess.run([*words, *formatting], capture_output=True, text=True, timeout=60)
            expect(done.returncode == 0, done.stderr)
        self.child = Child([*words, "kafka.Kafka", self.properties], self.directory / "kafka.out")
        self.child.ready("Kafka takes connections", self.takes_connections, 60)
