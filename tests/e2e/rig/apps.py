"""What stands behind Wardent: Django under gunicorn or uvicorn, and an upstream that a test scripts."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from rig.client import Address, request
from rig.process import REPOSITORY, Process, free_port

SITE = REPOSITORY / "examples" / "django"


class Gunicorn:
    """The Django example under gunicorn, on TCP and on a unix socket."""

    def __init__(
        self,
        directory: Path,
        env: Mapping[str, str] = {},
        threads: int = 8,
        port: int | None = None,
    ) -> None:
        self.directory, self.env, self.threads = directory, env, threads
        self.address: Address = ("127.0.0.1", port or free_port())
        self.unix: Address = str(directory / "gunicorn.sock")
        self.access_log = directory / "gunicorn.log"
        self.process: Process | None = None

    def start(self) -> "Gunicorn":
        command: list[str | Path] = [
            *(sys.executable, "-m", "gunicorn", "--chdir", str(SITE)),
            *("--bind", "%s:%d" % self.address, "--bind", f"unix:{self.unix}"),
            *("--worker-class", "gthread", "--threads", str(self.threads)),
            *("--keep-alive", "2", "--graceful-timeout", "2"),
            *("--access-logfile", str(self.access_log)),
            *("--access-logformat", "%(r)s %(s)s"),
            "shop.wsgi",
        ]
        self.process = Process("gunicorn", command, self.directory, self.env)
        self.process.ready(lambda: request(self.address, "/healthz").status == 200)
        return self

    def stop(self) -> None:
        if self.process:
            self.process.stop()

    def log(self) -> str:
        """The access log: one `METHOD TARGET VERSION STATUS` a line."""
        return self.access_log.read_text()


class Uvicorn:
    """The Django example under uvicorn, which also speaks WebSocket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address: Address = ("127.0.0.1", free_port())
        self.process: Process | None = None

    def start(self) -> "Uvicorn":
        command: list[str | Path] = [
            *(sys.executable, "-m", "uvicorn", "--app-dir", str(SITE)),
            *("--host", self.address[0], "--port", str(self.address[1])),
            "shop.asgi:application",
        ]
        self.process = Process("uvicorn", command, self.directory)
        self.process.ready(lambda: request(self.address, "/healthz").status == 200)
        return self

    def stop(self) -> None:
        if self.process:
            self.process.stop()


Handler = Callable[[socket.socket, bytes], None]


class RawUpstream:
    """An upstream that answers each connection with a handler: bytes in, bytes out, nothing implied.

    The handler gets the socket and all that came with the request's head.
    """

    def __init__(self, handler: Handler, path: str | None = None) -> None:
        self.handler = handler
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen(64)
            self.address: Address = path
        else:
            self.listener = socket.create_server(("127.0.0.1", free_port()))
            self.address = self.listener.getsockname()
        self.heads: list[bytes] = []
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                threading.Thread(
                    target=self._serve, args=(connection,), daemon=True
                ).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(60)
            received = b""
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65_536)
                if not piece:
                    return
                received += piece
            self.heads.append(received.partition(b"\r\n\r\n")[0])
            self.handler(connection, received)

    def stop(self) -> None:
        # shutdown, not only close: it wakes the thread that waits in accept.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            connection.close()


def answer(response: bytes) -> Handler:
    """Answers like Wardent: at once, then half-closes and reads the rest before it closes."""

    def handler(connection: socket.socket, _: bytes) -> None:
        connection.sendall(response)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    return handler


# Django's settings are the example's in every child; in this process the middleware's test makes its own.
os.environ.pop("DJANGO_SETTINGS_MODULE", None)
