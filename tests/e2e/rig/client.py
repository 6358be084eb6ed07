"""HTTP as a client speaks it: plain requests, and uploads that read while they write."""

import http.client
import io
import selectors
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message

# A TCP address or the path of a unix socket.
Address = tuple[str, int] | str

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
BLOCK = b"w" * 65_536


@dataclass
class Response:
    """An answer, whole."""

    status: int
    headers: Message
    body: bytes
    # Of an upload: how much the client had sent when the connection was over.
    sent: int = 0

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def open_socket(
    address: Address, source: str | None = None, timeout_s: float = 10
) -> socket.socket:
    """A connected socket."""
    if isinstance(address, str):
        unix = socket.socket(socket.AF_UNIX)
        unix.settimeout(timeout_s)
        unix.connect(address)
        return unix
    bind = (source, 0) if source else None
    return socket.create_connection(address, timeout_s, source_address=bind)


class Connection(http.client.HTTPConnection):
    """A kept-alive connection, over TCP or a unix socket, from any loopback address."""

    def __init__(
        self,
        address: Address,
        source: str | None = None,
        timeout_s: float = 10,
        tls: bool = False,
    ) -> None:
        super().__init__("shop.test", timeout=timeout_s)
        self.address, self.origin, self.tls = address, source, tls
        self.timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = open_socket(self.address, self.origin, self.timeout_s)
        if self.tls:
            context = ssl.create_default_context()
            # The certificate is the test's own.
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock, server_hostname="example.com")

    def begin(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> http.client.HTTPResponse:
        """One request, and the head of its answer. Headers are sent as given, repeated ones too."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in pairs}
        self.putrequest(
            method, target, skip_host="host" in names, skip_accept_encoding=True
        )
        if "user-agent" not in names:
            self.putheader("User-Agent", BROWSER)
        for name, value in pairs:
            self.putheader(name, value)
        if body is not None and not {"content-length", "transfer-encoding"} & names:
            self.putheader("Content-Length", str(len(body)))
        self.endheaders(body)
        return self.getresponse()

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> Response:
        """One request, and its whole answer."""
        answer = self.begin(method, target, headers, body)
        return Response(answer.status, answer.headers, answer.read())


def request(
    address: Address,
    target: str = "/",
    method: str = "GET",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
    source: str | None = None,
    timeout_s: float = 10,
    tls: bool = False,
) -> Response:
    """One request on a connection of its own."""
    connection = Connection(address, source, timeout_s, tls)
    try:
        return connection.ask(method, target, headers, body)
    finally:
        connection.close()


def send_raw(address: Address, data: bytes, timeout_s: float = 10) -> bytes:
    """Sends bytes as they are; returns all that comes until the other side closes."""
    with open_socket(address, timeout_s=timeout_s) as sock:
        sock.sendall(data)
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
        return answer


def parse(received: bytes) -> Response | None:
    """The answer, if it is whole."""
    head, separator, rest = received.partition(b"\r\n\r\n")
    if not separator:
        return None
    status_line, _, fields = head.partition(b"\r\n")
    headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
    if (length := headers.get("Content-Length")) is not None:
        if len(rest) < int(length):
            return None
        rest = rest[: int(length)]
    elif headers.get("Transfer-Encoding") == "chunked":
        if not rest.endswith(b"0\r\n\r\n"):
            return None
    return Response(int(status_line.split()[1]), headers, rest)


def upload(
    address: Address,
    target: str,
    size: int,
    headers: Mapping[str, str] = {},
    chunked: bool = False,
    go_on: bool = False,
    timeout_s: float = 30,
) -> Response:
    """Sends `size` bytes and reads at the same time, as browsers and curl do.

    An answer that comes early ends the sending, as in curl; with `go_on` the client sends all the rest
    into it, as a simple one does. A reset before the whole answer is there fails the test.
    """
    lines = [
        f"POST {target} HTTP/1.1",
        "Host: shop.test",
        f"User-Agent: {BROWSER}",
        "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    unsent = memoryview("\r\n".join([*lines, "", ""]).encode())
    left, sent, received = size, 0, b""
    answer: Response | None = None
    end = time.monotonic() + timeout_s
    with open_socket(address) as sock, selectors.DefaultSelector() as selector:
        sock.setblocking(False)
        reading, writing = selectors.EVENT_READ, selectors.EVENT_WRITE
        selector.register(sock, reading | writing)
        while answer is None or (go_on and (left or unsent)):
            assert time.monotonic() < end, (
                f"no whole answer within {timeout_s} s; sent {sent} of {size}, "
                f"received {received[:200]!r}"
            )
            ready = sum(events for _, events in selector.select(0.5))
            if ready & reading:
                try:
                    piece = sock.recv(65_536)
                except ConnectionResetError:
                    assert answer, f"reset after {sent} bytes, received {received!r}"
                    break
                received += piece
                answer = answer or parse(received)
                if not piece:
                    assert answer, f"closed after {sent} bytes, received {received!r}"
                    # Half-closed: only the sending goes on.
                    selector.modify(sock, writing)
            if not unsent and left:
                piece = BLOCK[: min(left, len(BLOCK))]
                left -= len(piece)
                if chunked:
                    last = b"" if left else b"0\r\n\r\n"
                    piece = b"%x\r\n%s\r\n%s" % (len(piece), piece, last)
                unsent = memoryview(piece)
            if ready & writing and unsent:
                try:
                    count = sock.send(unsent)
                    sent, unsent = sent + count, unsent[count:]
                except (BrokenPipeError, ConnectionResetError):
                    # Nobody takes more; the answer may still wait to be read.
                    left, unsent = 0, memoryview(b"")
            if not (left or unsent):
                selector.modify(sock, reading)
    assert answer is not None
    answer.sent = sent
    return answer
