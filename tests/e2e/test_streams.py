"""What flows instead of arriving at once: events, WebSockets, downloads, uploads."""

import hashlib
import http.client
import os
import socket
import threading
import time

import pytest
from rig import Connection, Gunicorn, Nginx, Uvicorn, Wardent, request, wait_until
from rig.client import BROWSER, open_socket, parse
from websockets.sync.client import connect

CLIENT = {"CF-Connecting-IP": "198.51.100.7"}
MIB = 2**20


@pytest.fixture(scope="module")
def wardent(module_rig, django_app: Gunicorn) -> Wardent:
    return module_rig.wardent(django_app.address)


@pytest.fixture(scope="module")
def nginx(module_rig, wardent: Wardent) -> Nginx:
    return module_rig.nginx(wardent.address)


@pytest.fixture(params=["through nginx", "directly"])
def address(request, nginx: Nginx, wardent: Wardent):
    return nginx.address if request.param == "through nginx" else wardent.address


def test_events_arrive_one_by_one(address) -> None:
    """Each before the next one is made: nobody on the way collects them."""
    interval_s = 0.5
    target = f"/events/?count=4&interval={interval_s}"
    answer = Connection(address).begin("GET", target, CLIENT)
    assert answer.headers["Content-Type"] == "text/event-stream"
    delays = []
    while line := answer.readline():
        if line.startswith(b"data: "):
            delays.append(time.time() - float(line.removeprefix(b"data: ")))
    assert len(delays) == 4
    assert max(delays) < interval_s, delays


def test_the_head_of_an_answer_does_not_wait_for_its_body(address) -> None:
    answer = Connection(address).begin("GET", "/slow-body/2", CLIENT)
    assert answer.readline() == b"begun\n"
    begun = time.monotonic()
    assert answer.readline() == b"done\n"
    assert time.monotonic() - begun > 1


def download_hash(mebibytes: int) -> str:
    """Of what `download` in the example sends."""
    sha256 = hashlib.sha256()
    for number in range(mebibytes):
        sha256.update(hashlib.sha256(b"%d" % number).digest() * (MIB // 32))
    return sha256.hexdigest()


def test_a_download_of_50_mb_is_the_same_on_the_other_side(address) -> None:
    got = request(address, "/download/50", headers=CLIENT, timeout_s=60)
    assert got.status == 200
    assert len(got.body) == 50 * MIB
    assert hashlib.sha256(got.body).hexdigest() == download_hash(50)


def test_a_slow_reader_gets_all_of_it(wardent: Wardent) -> None:
    with open_socket(wardent.address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        sock.sendall(
            f"GET /download/4 HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: {BROWSER}\r\n"
            "CF-Connecting-IP: 198.51.100.7\r\nConnection: close\r\n\r\n".encode()
        )
        received = bytearray()
        while piece := sock.recv(4096):
            received += piece
    answer = parse(bytes(received))
    assert answer and hashlib.sha256(answer.body).hexdigest() == download_hash(4)


def test_an_answer_that_breaks_off_does_not_look_whole(rig) -> None:
    def break_off(connection, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")

    upstream = rig.raw_upstream(break_off)
    wardent = rig.wardent(upstream.address)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        request(wardent.address, headers=CLIENT)


@pytest.mark.parametrize("through", ["nginx", "directly"])
def test_an_upload_flows_while_it_is_being_sent(rig, through: str) -> None:
    """The first half arrives before the second is sent."""
    first, rest, received = b"a" * 100_000, b"b" * 100_000, bytearray()

    def collect(connection, head: bytes) -> None:
        received.extend(head.partition(b"\r\n\r\n")[2])
        while len(received) < len(first) + len(rest):
            received.extend(connection.recv(65_536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    wardent = rig.wardent(rig.raw_upstream(collect).address)
    entry = rig.nginx(wardent.address) if through == "nginx" else wardent
    head = (
        f"POST /upload/ HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: {BROWSER}\r\n"
        f"CF-Connecting-IP: 198.51.100.7\r\nContent-Length: {len(first + rest)}\r\n\r\n"
    )
    with open_socket(entry.address) as sock:
        sock.sendall(head.encode() + first)
        wait_until("the first half is there", lambda: len(received) == len(first))
        sock.sendall(rest)
        answer = b""
        while parse(answer) is None:
            answer += sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert bytes(received) == first + rest


class TestWebSocket:
    @pytest.fixture(scope="class")
    @classmethod
    def wardent(cls, module_rig, asgi_app: Uvicorn) -> Wardent:
        return module_rig.wardent(asgi_app.address)

    @pytest.fixture(scope="class")
    @classmethod
    def nginx(cls, module_rig, wardent: Wardent) -> Nginx:
        return module_rig.nginx(wardent.address)

    @pytest.fixture
    def url(self, address) -> str:
        return "ws://%s:%d/ws/echo" % address

    def connect(self, url: str, **options):
        return connect(
            url,
            additional_headers=CLIENT,
            user_agent_header=BROWSER,
            proxy=None,
            open_timeout=10,
            **options,
        )

    def test_messages_come_back_as_they_were(self, url: str) -> None:
        with self.connect(url, max_size=None) as websocket:
            for number in range(1000):
                websocket.send(f"message {number} ü")
                assert websocket.recv(10) == f"message {number} ü"
            blob = os.urandom(MIB)
            websocket.send(blob)
            assert websocket.recv(10) == blob

    def test_many_in_flight(self, url: str) -> None:
        with self.connect(url) as websocket:
            sender = threading.Thread(
                target=lambda: [websocket.send(str(n)) for n in range(5000)]
            )
            sender.start()
            assert [websocket.recv(10) for _ in range(5000)] == [
                str(number) for number in range(5000)
            ]
            sender.join(10)

    def test_closing_arrives_on_the_other_side(self, url: str) -> None:
        with self.connect(url) as websocket:
            websocket.close(1000, "done")
            assert websocket.close_code == 1000

    def test_http_beside_it_still_works(self, address) -> None:
        assert request(address, headers=CLIENT).status == 200

    @pytest.mark.parametrize(
        "broken",
        [
            {"Upgrade": "websocket"},
            {"Connection": "Upgrade", "Upgrade": "websocket"},
            {"Connection": "Upgrade", "Upgrade": "tunnel"},
        ],
        ids=["no connection", "no key", "unknown"],
    )
    def test_a_bad_handshake_opens_nothing(
        self, wardent: Wardent, broken: dict[str, str]
    ) -> None:
        got = request(wardent.address, "/ws/echo", headers={**CLIENT, **broken})
        assert got.status >= 400
