"""The real nginx with the shipped files, changed only in ports, paths and the trusted network."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rig.client import Address, open_socket
from rig.process import REPOSITORY, Process, free_port

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")

MAIN = """
{user}
worker_processes 2;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path       {directory}/proxy;
    fastcgi_temp_path     {directory}/fastcgi;
    uwsgi_temp_path       {directory}/uwsgi;
    scgi_temp_path        {directory}/scgi;
    include wardent/wardent.conf;
    include site.conf;
}}
"""


def replaced(text: str, old: str, new: str) -> str:
    """`text` with `old` replaced: a shipped file that no longer has it is a broken test."""
    assert old in text, f"the shipped file has no {old!r}"
    return text.replace(old, new)


def without_comments(text: str) -> str:
    return re.sub(r"(?m)^\s*#.*\n", "", text)


class Nginx:
    """One nginx, with a plain and a TLS port, in front of `upstream`."""

    def __init__(
        self,
        directory: Path,
        upstream: Address,
        site: str = "site.conf",
        keepalive: bool = True,
        trusted: str | None = "127.0.0.1/32",
        changes: Mapping[str, tuple[str, str]] = {},
    ) -> None:
        """`changes` names a shipped file and what is replaced in it: what an operator would edit."""
        assert NGINX, "nginx is not installed"
        self.directory = directory
        self.address: Address = ("127.0.0.1", free_port())
        self.tls: Address = ("127.0.0.1", free_port())
        self.access_log = directory / "access.log"
        self.error_log = directory / "error.log"
        self.process: Process | None = None
        shipped = directory / "wardent"
        shutil.copytree(REPOSITORY / "nginx", shipped)
        for name, (old, new) in changes.items():
            file = shipped / name
            file.write_text(replaced(file.read_text(), old, new))

        server = f"unix:{upstream}" if isinstance(upstream, str) else "%s:%d" % upstream
        http = shipped / "wardent.conf"
        text = replaced(http.read_text(), "server 127.0.0.1:8080", f"server {server}")
        if not keepalive:
            text = replaced(text, "    keepalive 64;", "")
        http.write_text(text)
        if trusted:
            with (shipped / "cloudflare.conf").open("a") as networks:
                networks.write(f"{trusted} 1;\n")
        pages = shipped / "snippets" / "page-files.conf"
        pages.write_text(
            replaced(
                pages.read_text(), "/etc/nginx/wardent/pages/", f"{shipped}/pages/"
            )
        )

        self._certificate()
        text = (shipped / site).read_text()
        text = replaced(
            text,
            "listen 443 ssl;",
            "listen %s:%d ssl; listen %s:%d;" % (*self.tls, *self.address),
        )
        text = replaced(text, "listen [::]:443 ssl;", "")
        text = replaced(text, "listen 80;", f"listen 127.0.0.1:{free_port()};")
        text = replaced(text, "listen [::]:80;", "")
        text = replaced(text, "/etc/nginx/ssl/", f"{directory}/")
        text = replaced(
            text, "/var/log/nginx/example.com.access.log", f"{self.access_log}"
        )
        (directory / "site.conf").write_text(text)
        # As root its workers would change to a user that may not enter the test's directory.
        user = "user root;" if os.geteuid() == 0 else ""
        self.config = directory / "nginx.conf"
        self.config.write_text(MAIN.format(user=user, directory=directory))

    def _certificate(self) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-subj", "/CN=example.com"),
                *("-keyout", str(self.directory / "origin.key")),
                *("-out", str(self.directory / "origin.pem")),
            ],
            check=True,
            capture_output=True,
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        """`nginx -t`."""
        command = [str(NGINX), "-p", str(self.directory), "-c", str(self.config), "-t"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)

    def start(self) -> "Nginx":
        command = [str(NGINX), "-p", str(self.directory), "-c", str(self.config)]
        self.process = Process("nginx", command, self.directory)
        self.process.ready(self.accepts)
        return self

    def accepts(self) -> bool:
        open_socket(self.address).close()
        return True

    def stop(self) -> None:
        if self.process:
            self.process.stop()

    def log(self) -> str:
        """The access log so far."""
        return self.access_log.read_text() if self.access_log.exists() else ""

    def errors(self) -> str:
        """The error log so far."""
        return self.error_log.read_text()
