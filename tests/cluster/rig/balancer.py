"""nginx as a load balancer: one request to each node in turn, over connections that are kept."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from harness.process import Child, Missing, free_port


class Balancer:
    def __init__(self, ports: list[int]) -> None:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if nginx is None:
            raise Missing("nginx is not installed")
        self.directory = Path(tempfile.mkdtemp(prefix="balancer-"))
        self.port = free_port()
        servers = "".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        paths = "".join(
            f"{kind}_temp_path {self.directory};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.config = self.directory / "nginx.conf"
        self.config.write_text(
            f"daemon off; worker_processes 1; pid {self.directory}/pid; error_log {self.directory}/error.log;\n"
            "events { worker_connections 512; }\n"
            f"http {{ access_log off; {paths}\n"
            f"  upstream nodes {{ {servers} keepalive 16; }}\n"
            f"  server {{ listen 127.0.0.1:{self.port};\n"
            "    location / { proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection '';\n"
            "      proxy_set_header Host $host; } } }\n"
        )
        self.nginx = nginx
        self.child: Child | None = None

    def start(self) -> None:
        command = [self.nginx, "-e", self.directory / "error.log", "-c", self.config]
        self.child = Child(command, self.directory / "out")
        self.child.ready("the balancer takes connections", self.is_open, 10)

    def is_open(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True

    def close(self) -> None:
        if self.child:
            self.child.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
