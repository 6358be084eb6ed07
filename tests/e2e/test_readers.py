"""What passes is read alike by everybody: h11 and gunicorn's parser read what h11 reads at the client."""

import contextlib
import random
import socket
from collections.abc import Iterator

import h11
import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidRequestMethod
from gunicorn.http.parser import RequestParser
from rig import RawUpstream, Wardent
from rig.client import Address, open_socket

CASES = 400

SAMPLES = [
    b"GET /a?b=c HTTP/1.1\r\nHost: app.test\r\nAccept: */*\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: app.test\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET /b HTTP/1.1\r\nHost: app.test\r\n\r\n",
    b"PUT http://app.test/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n",
]
WORDS = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"\0", b"\x0b", b"\x80", b"_", b"0",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length : 5\r\n", b"Content-Length: +5\r\n",
    b"Content-Length: 5, 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n", b" chunked\r\n",
    b"Connection: close\r\n", b"Connection: content-length\r\n", b"Connection: transfer-encoding\r\n",
    b"Host: evil.test\r\n", b"X-A: 1\r\n", b"X-A: 2\r\n", b"TE: trailers\r\n", b"Expect: 100-continue\r\n",
    b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b";a", b"GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n",
]  # fmt: skip

# Method, target, the fields that every reader keeps, body.
Seen = tuple[bytes, bytes, dict[bytes, list[bytes]], bytes]


def fields(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    kept = (b"host", b"x-a", b"x-b", b"accept", b"content-length")
    found: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        if name.lower() in kept:
            found.setdefault(name.lower(), []).append(value)
    return found


def read_by_h11(data: bytes) -> Iterator[Seen]:
    """The whole requests at the front of `data`, until the first that h11 refuses or misses a part of."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    while True:
        body = b""
        request = None
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return
        assert request is not None
        yield request.method, request.target, fields(list(request.headers)), body
        connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.MUST_CLOSE:
            return
        connection.start_next_cycle()


def read_by_gunicorn(data: bytes) -> list[Seen]:
    """All requests that gunicorn finds in `data`, which must be nothing else."""
    found = []
    for request in RequestParser(Config(), iter([data]), ("127.0.0.1", 1)):
        pairs = [(name.encode("latin1"), value.encode("latin1")) for name, value in request.headers]
        body = request.body.read()
        found.append((request.method.encode(), request.uri.encode("latin1"), fields(pairs), body))
        if request.should_close():
            break
    return found


class Recorder:
    """An application that keeps the bytes of every request, and answers when h11 finds its end."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def __call__(self, connection: socket.socket, first: bytes) -> None:
        data = first
        while not list(read_by_h11(data)):
            more = connection.recv(65536)
            if not more:
                return
            data += more
        self.requests.append(data)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def send(address: Address, data: bytes) -> None:
    """Sends the bytes and their end, and waits until all has been answered."""
    with open_socket(address) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass


def mutated(dice: random.Random) -> bytes:
    data = dice.choice(SAMPLES)
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(data) + 1)
        end = at + dice.choice([0, 0, 0, 1, 5])
        if dice.random() < 0.4:
            at = end = data.find(b"\r\n", at) + 2
        data = data[:at] + dice.choice(WORDS) + data[end:]
    return data


@pytest.fixture(scope="module")
def recorded(module_rig) -> tuple[Recorder, Wardent]:  # type: ignore[no-untyped-def]
    recorder = Recorder()
    upstream: RawUpstream = module_rig.raw_upstream(recorder)
    config = {"client_ip": {"missing": "peer"}}
    return recorder, module_rig.wardent(upstream.address, config=config)


def test_what_passes_has_one_meaning(recorded: tuple[Recorder, Wardent]) -> None:
    recorder, wardent = recorded
    dice = random.Random(1)
    compared = 0
    for case in range(CASES):
        data = SAMPLES[case] if case < len(SAMPLES) else mutated(dice)
        before = len(recorder.requests)
        send(wardent.address, data)
        passed = recorder.requests[before:]
        meant = list(read_by_h11(data))
        for place, wire in enumerate(passed):
            ours = list(read_by_h11(wire))
            assert len(ours) == 1, f"h11 reads {ours} in {wire!r}, of {data!r}"
            # gunicorn wants methods in capitals; what it refuses for that, it does not misread.
            with contextlib.suppress(InvalidRequestMethod):
                assert read_by_gunicorn(wire) == ours, f"{wire!r}, of {data!r}"
            if place < len(meant):
                assert_same(ours[0], meant[place], data)
                compared += 1
    assert compared > CASES // 4, f"only {compared} requests were compared"


def assert_same(passed: Seen, meant: Seen, data: bytes) -> None:
    method, target, kept, body = meant
    # A whole URL is passed on as its path; what `Connection` names ends at the proxy.
    if target.startswith(b"http"):
        target = b"/" + target.split(b"/", 3)[3]
    assert passed[:2] == (method, target), f"{data!r}"
    assert passed[3] == body, f"{data!r}"
    for name, values in passed[2].items():
        assert values == kept.get(name), f"{name!r} of {data!r}"
