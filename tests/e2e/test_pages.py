"""Refusals and failures through the whole chain: people get nginx's page, programs the answer itself."""

import threading
from pathlib import Path

import pytest
from rig import Nginx, Wardent, free_port, request, wait_until

CLIENT = {"CF-Connecting-IP": "198.51.100.7"}
DENIED = {"CF-Connecting-IP": "203.0.113.7"}
POLICY = {
    "deny": ["203.0.113.0/24"],
    "routes": [
        {
            "name": "login",
            "match": {"path": ["/accounts/login/", "/api/login"]},
            "limit": {"rate": "1/m", "burst": 1},
        },
    ],
}


@pytest.fixture(scope="module")
def chain(module_rig, django_app) -> tuple[Nginx, Wardent]:
    wardent = module_rig.wardent(django_app.address, policy=POLICY)
    return module_rig.nginx(wardent.address), wardent


@pytest.fixture(scope="module")
def nginx(chain: tuple[Nginx, Wardent]) -> Nginx:
    return chain[0]


def page(repository: Path, code: int) -> bytes:
    return (repository / "nginx" / "pages" / f"{code}.html").read_bytes()


def reason(nginx: Nginx, mark: str) -> str:
    """The reason in nginx's log, of the request whose target has the mark."""
    line = wait_until(
        f"{mark} is in nginx's log",
        lambda: [line for line in nginx.log().splitlines() if mark in line],
    )[-1]
    return line.partition(" reason=")[2].split()[0]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_403_denied(nginx: Nginx, repository: Path, method: str) -> None:
    body = b"a=1" if method == "POST" else None
    got = request(nginx.address, f"/?denied-{method}", method, DENIED, body)
    assert (got.status, got.body) == (403, page(repository, 403))
    assert not [name for name in got.headers if name.lower().startswith("x-wardent")]
    assert got.headers["X-Request-ID"]
    assert reason(nginx, f"denied-{method}") == "denied"


def test_403_for_a_program_is_raw(nginx: Nginx) -> None:
    got = request(nginx.address, "/api/status/200?denied", "POST", DENIED, b"{}")
    assert (got.status, got.body) == (403, b"")
    assert not [name for name in got.headers if name.lower().startswith("x-wardent")]


def test_429_says_when_to_come_back(nginx: Nginx, repository: Path) -> None:
    headers = {"CF-Connecting-IP": "198.51.100.21"}
    request(nginx.address, "/accounts/login/?first", "POST", headers, b"a=1")
    target = "/accounts/login/?limited"
    got = request(nginx.address, target, "POST", headers, b"a=1")
    assert (got.status, got.body) == (429, page(repository, 429))
    assert 0 < int(got.headers["Retry-After"]) <= 60
    assert got.headers["RateLimit"].startswith('"login";r=0;t=')
    assert got.headers["RateLimit-Policy"].startswith('"login";q=')
    assert got.headers["Cache-Control"] == "no-store"
    assert reason(nginx, "limited") == "rate_limited"


def test_429_for_a_program_keeps_its_headers(nginx: Nginx) -> None:
    headers = {"CF-Connecting-IP": "198.51.100.22"}
    request(nginx.address, "/api/login", "POST", headers, b"{}")
    got = request(nginx.address, "/api/login", "POST", headers, b"{}")
    assert (got.status, got.body) == (429, b"")
    assert int(got.headers["Retry-After"]) > 0
    assert got.headers["RateLimit"].startswith('"login";r=0;t=')


@pytest.mark.parametrize("code", [403, 429, 500, 502, 503, 504])
def test_the_applications_own_errors_are_replaced_for_people_only(
    nginx: Nginx, repository: Path, code: int
) -> None:
    got = request(nginx.address, f"/status/{code}?own", headers=CLIENT)
    assert (got.status, got.body) == (code, page(repository, code))
    got = request(nginx.address, f"/api/status/{code}", headers=CLIENT)
    assert (got.status, got.text) == (code, f"Django says {code}")


@pytest.mark.parametrize("code", [400, 401, 404, 405, 410, 422])
def test_other_errors_of_the_application_are_its_own(nginx: Nginx, code: int) -> None:
    got = request(nginx.address, f"/status/{code}", headers=CLIENT)
    assert (got.status, got.text) == (code, f"Django says {code}")


def test_502_when_the_application_is_down(rig, repository: Path) -> None:
    nginx = rig.nginx(rig.wardent(("127.0.0.1", free_port())).address)
    for method, body in (("GET", None), ("POST", b"a=1")):
        got = request(nginx.address, f"/?down-{method}", method, CLIENT, body)
        # 503 once Wardent has taken the server out; the only one left never is.
        assert (got.status, got.body) == (502, page(repository, 502))
        assert reason(nginx, f"down-{method}") == "upstream_unreachable"
    got = request(nginx.address, "/api/echo", "POST", CLIENT, b"{}")
    assert (got.status, got.body) == (502, b"")


def test_502_when_the_application_breaks_off(rig, repository: Path) -> None:
    upstream = rig.raw_upstream(lambda connection, _: connection.sendall(b"HTTP/1.1"))
    nginx = rig.nginx(rig.wardent(upstream.address).address)
    got = request(nginx.address, "/?broken", "POST", CLIENT, b"a=1")
    assert (got.status, got.body) == (502, page(repository, 502))
    assert reason(nginx, "broken") == "upstream_broken"


def test_504_when_the_application_is_late(rig, django_app, repository: Path) -> None:
    late = {"upstream": {"response_timeout": "300ms"}}
    nginx = rig.nginx(rig.wardent(django_app.address, config=late).address)
    got = request(nginx.address, "/slow/3?late", "POST", CLIENT, b"a=1")
    assert (got.status, got.body) == (504, page(repository, 504))
    assert reason(nginx, "late") == "upstream_timeout"


def test_503_when_wardent_holds_all_it_may(rig, repository: Path) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def hold(connection, _: bytes) -> None:
        arrived.set()
        go_on.wait(20)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream = rig.raw_upstream(hold)
    one = {"upstream": {"max_in_flight": 1}}
    # One worker: whether the bound is shared out among workers is not what is asked here.
    wardent = rig.wardent(upstream.address, config={"workers": 1, **one})
    nginx = rig.nginx(wardent.address)
    held = threading.Thread(target=request, args=(nginx.address, "/", "GET", CLIENT))
    held.start()
    try:
        assert arrived.wait(10)
        got = request(nginx.address, "/?too-many", headers=CLIENT)
    finally:
        go_on.set()
        held.join(20)
    assert (got.status, got.body) == (503, page(repository, 503))
    assert reason(nginx, "too-many") == "overloaded"


def test_the_reason_shows_directly_and_never_through_nginx(
    chain: tuple[Nginx, Wardent],
) -> None:
    nginx, wardent = chain
    direct = request(wardent.address, headers=DENIED)
    assert (direct.status, direct.body) == (403, b"")
    assert direct.headers["Content-Length"] == "0"
    assert direct.headers["X-Wardent-Reason"] == "denied"
    through = request(nginx.address, "/api/x", headers=DENIED)
    assert "X-Wardent-Reason" not in through.headers


def test_an_applications_x_wardent_headers_are_removed(rig) -> None:
    def forge(connection, _: bytes) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Wardent-Reason: forged\r\n"
            b"X-Wardent-Other: forged\r\nConnection: close\r\n\r\nok"
        )

    wardent = rig.wardent(rig.raw_upstream(forge).address)
    got = request(wardent.address, headers=CLIENT)
    assert (got.status, got.body) == (200, b"ok")
    assert not [name for name in got.headers if name.lower().startswith("x-wardent")]
