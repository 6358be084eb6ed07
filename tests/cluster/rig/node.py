"""One node: a Wardent, and the mirror beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harness.broker import Wardent, wardent_binary
from harness.process import Child, Missing, expect


class Answers(BaseHTTPRequestHandler):
    """An application that has the same word for everybody."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class Application:
    """It, on a port of its own."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Node(Wardent):
    """A Wardent that is a node of a cluster; its mirror is started and ended by itself."""

    def __init__(
        self,
        name: str,
        bootstrap: str,
        cluster: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        upstream: int | None = None,
        log: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(log)
        self.node = name
        self.mirror: Child | None = None
        settings = json.loads(self.config.read_text())
        settings["cluster"] = {
            "node": name,
            "kafka": {"bootstrap": bootstrap.split(",")},
            "catch_up": "1GiB/s",
            **(cluster or {}),
        }
        if upstream:
            settings["upstream"] = {"servers": [f"127.0.0.1:{upstream}"]}
        self.config.write_text(json.dumps(settings))
        if policy:
            (self.directory / "policy.yaml").write_text(json.dumps(policy))

    @property
    def mirror_output(self) -> Path:
        return self.directory / "mirror.out"

    def start_mirror(self) -> None:
        command = [wardent_binary(), "mirror", "--config", self.config]
        self.mirror = Child(command, self.mirror_output)

    def mirror_said(self) -> str:
        return self.mirror.tail() if self.mirror else ""

    def kill_mirror(self) -> None:
        """kill -9."""
        assert self.mirror
        self.mirror.kill()

    def stop_mirror(self, seconds: float = 30) -> None:
        """SIGTERM; it must end well."""
        assert self.mirror
        os.kill(self.mirror.pid, signal.SIGTERM)
        code = self.mirror.child.wait(seconds)
        expect(code == 0, f"the mirror ended with {code}: {self.mirror.tail()}")

    def close(self) -> None:
        if self.mirror:
            self.mirror.kill()
        super().close()

    def ask(self, path: str, client: str, method: str = "GET") -> tuple[int, dict[str, str]]:
        """Status and headers of an answer to this client."""
        connection = HTTPConnection("127.0.0.1", self.http, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"CF-Connecting-IP": client, "Host": "www.example.org"})
            answer = connection.getresponse()
            answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    def told(self) -> Any:
        """What the API says of the cluster."""
        connection = HTTPConnection("127.0.0.1", self.admin, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/api/v1/cluster")
            answer = connection.getresponse()
            return json.loads(answer.read())


def require_mirror() -> None:
    """Raises Missing where the binary was built without the mirror."""
    binary = wardent_binary()
    # librdkafka says who it is in every binary that has it.
    with binary.open("rb") as file:
        there = any(re.search(rb"librdkafka", chunk) for chunk in iter(lambda: file.read(1 << 24), b""))
    if not there:
        raise Missing(f"{binary} was built without `--features cluster`")
