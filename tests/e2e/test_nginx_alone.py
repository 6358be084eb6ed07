"""The nginx sample in front of a scripted Wardent: what it replaces, what it leaves, what it tells whom."""

import re
import subprocess
from pathlib import Path

import pytest
from rig import Nginx, request, upload, wait_until
from rig.apps import answer
from rig.nginx import without_comments

PAGES = {
    403: "Forbidden",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
CODES = list(PAGES)
SITES = ["site.conf", "site-buffered.conf"]


def refusal(code: int) -> bytes:
    """Wardent's raw answer, with every header that nginx has to treat in a way of its own."""
    return (
        f"HTTP/1.1 {code} {PAGES[code]}\r\n"
        "Content-Length: 0\r\n"
        "Connection: close\r\n"
        "X-Wardent-Reason: because_of_the_test\r\n"
        "X-Request-ID: 0199-test\r\n"
        "Retry-After: 7\r\n"
        'RateLimit: "login";r=0;t=7\r\n'
        'RateLimit-Policy: "login";q=5;w=60\r\n'
        "\r\n"
    ).encode()


def page(repository: Path, code: int) -> bytes:
    return (repository / "nginx" / "pages" / f"{code}.html").read_bytes()


@pytest.fixture(scope="module", params=SITES)
def refusing(request, module_rig) -> dict[int, Nginx]:
    """For each code an nginx whose Wardent always answers it."""
    return {
        code: module_rig.nginx(
            module_rig.raw_upstream(answer(refusal(code))).address, site=request.param
        )
        for code in CODES
    }


@pytest.mark.parametrize("site", SITES)
def test_nginx_accepts_the_files(rig, site: str) -> None:
    nginx = Nginx(rig.directory(), ("127.0.0.1", 9), site=site)
    checked = nginx.check()
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("code", CODES)
def test_a_page_keeps_its_code(
    refusing, repository: Path, code: int, method: str
) -> None:
    body = b"a=1" if method in ("POST", "PUT") else None
    got = request(refusing[code].address, "/form", method, body=body)
    assert got.status == code
    assert got.body == page(repository, code)
    assert got.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("code", CODES)
def test_a_page_keeps_the_headers_that_matter(refusing, code: int) -> None:
    got = request(refusing[code].address)
    assert got.headers["Retry-After"] == "7"
    assert got.headers["RateLimit"] == '"login";r=0;t=7'
    assert got.headers["RateLimit-Policy"] == '"login";q=5;w=60'
    assert got.headers["X-Request-ID"] == "0199-test"
    assert got.headers["Cache-Control"] == "no-store"
    assert "ETag" not in got.headers
    assert "Last-Modified" not in got.headers


def test_a_page_cannot_become_a_304(refusing) -> None:
    conditions = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    assert request(refusing[403].address, headers=conditions).status == 403


def test_head_gets_the_code_and_no_body(refusing) -> None:
    got = request(refusing[403].address, method="HEAD")
    assert (got.status, got.body) == (403, b"")


@pytest.mark.parametrize("path", ["/api/x", "/webhooks/stripe"])
@pytest.mark.parametrize("code", CODES)
def test_programs_get_the_answer_itself(refusing, code: int, path: str) -> None:
    got = request(refusing[code].address, path, "POST", body=b"{}")
    assert (got.status, got.body) == (code, b"")
    assert got.headers["Retry-After"] == "7"
    assert got.headers["X-Request-ID"] == "0199-test"


@pytest.mark.parametrize("path", ["/", "/api/x"])
def test_the_reason_is_for_the_log_only(refusing, path: str) -> None:
    nginx = refusing[429]
    marked = f"{path}?reason-{path.strip('/').replace('/', '-')}"
    got = request(nginx.address, marked)
    assert not [name for name in got.headers if name.lower().startswith("x-wardent")]
    line = wait_until(
        "the line is in nginx's log",
        lambda: [line for line in nginx.log().splitlines() if marked in line],
    )[0]
    assert " id=0199-test " in line
    assert " reason=because_of_the_test " in line


def test_pages_cannot_be_asked_for(refusing) -> None:
    got = request(refusing[403].address, "/_wardent/429.html")
    assert got.status == 404


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "streamed"])
@pytest.mark.parametrize("code", [413, 403])
def test_a_big_post_gets_its_page_and_is_not_refused_again(
    refusing, repository: Path, code: int, chunked: bool
) -> None:
    for _ in range(5):
        got = upload(refusing[code].address, "/upload/", 10 * 2**20, chunked=chunked)
        assert got.status == code
        assert got.body == page(repository, code)


@pytest.mark.parametrize("site", SITES)
def test_without_wardent_people_get_a_page_and_programs_a_plain_502(
    rig, repository: Path, site: str
) -> None:
    nginx = rig.nginx(("127.0.0.1", 9), site=site)
    got = request(nginx.address, "/form", "POST", body=b"a=1")
    assert (got.status, got.body) == (502, page(repository, 502))
    for path in ("/api/x", "/webhooks/stripe"):
        got = request(nginx.address, path, "POST", body=b"{}")
        assert got.status == 502
        assert got.body != page(repository, 502)


def test_beyond_the_buffered_bound_nginx_says_413_itself(rig, repository: Path) -> None:
    nginx = rig.nginx(("127.0.0.1", 9), site="site-buffered.conf")
    for chunked in (False, True):
        got = upload(nginx.address, "/upload/", 12 * 2**20, chunked=chunked)
        assert (got.status, got.body) == (413, page(repository, 413))


@pytest.mark.parametrize("site", SITES)
def test_the_200_variant_stays_away_from_programs(
    rig, repository: Path, site: str
) -> None:
    variant = {
        site: (
            "include wardent/snippets/pages.conf;",
            "include wardent/snippets/pages-200.conf;",
        )
    }
    nginx = rig.nginx(("127.0.0.1", 9), site=site, changes=variant)
    got = request(nginx.address, "/form", "POST", body=b"a=1")
    assert (got.status, got.body) == (200, page(repository, 502))
    assert got.headers["Cache-Control"] == "no-store"
    assert got.headers["X-Robots-Tag"] == "noindex"
    for path in ("/api/x", "/webhooks/stripe", "/ws/x"):
        assert request(nginx.address, path, "POST", body=b"{}").status == 502


def test_a_200_for_errors_set_further_up_does_not_reach_programs(
    rig, repository: Path
) -> None:
    careless = (
        "server_name example.com;\n\n    ssl_certificate ",
        "server_name example.com;\n error_page 502 =200 /_wardent/502.html;\n ssl_certificate ",
    )
    nginx = rig.nginx(("127.0.0.1", 9), changes={"site.conf": careless})
    assert request(nginx.address, "/webhooks/stripe", "POST", body=b"{}").status == 502


def echo_head(connection, received: bytes) -> None:
    """Answers with the request's head, to see what nginx makes of it."""
    head = received.partition(b"\r\n\r\n")[0]
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        % len(head)
        + head
    )


def fields(head: bytes) -> dict[str, list[str]]:
    """A head's header fields by lower-case name."""
    found: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), []).append(value.strip())
    return found


@pytest.fixture(scope="module")
def echoing(module_rig) -> Nginx:
    """An nginx whose Wardent shows what it got."""
    return module_rig.nginx(module_rig.raw_upstream(echo_head).address)


FORGED = [
    ("CF-Connecting-IP", "198.51.100.7"),
    ("X-Real-IP", "198.51.100.8"),
    ("X-Forwarded-For", "198.51.100.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Request-ID", "forged"),
    ("X_Real_IP", "198.51.100.10"),
    ("CF_Connecting_IP", "198.51.100.10"),
]


def test_cloudflare_may_name_the_client(echoing: Nginx) -> None:
    got = fields(request(echoing.address, headers=FORGED).body)
    assert got["cf-connecting-ip"] == ["198.51.100.7"]
    assert got["x-forwarded-for"] == ["198.51.100.7"]
    assert got["x-real-ip"] == ["127.0.0.1"]


def test_nobody_else_may(echoing: Nginx) -> None:
    got = fields(request(echoing.address, headers=FORGED, source="127.0.0.2").body)
    assert "cf-connecting-ip" not in got
    assert "x-forwarded-for" not in got
    assert got["x-real-ip"] == ["127.0.0.2"]


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_nothing_else_that_a_client_says_is_believed(
    echoing: Nginx, source: str
) -> None:
    got = fields(request(echoing.address, headers=FORGED, source=source).body)
    assert got["x-forwarded-proto"] == ["http"]
    assert "x-request-id" not in got
    assert not [name for name in got if "_" in name]


def test_who_the_peer_was_survives_a_realip_module(rig) -> None:
    realip = (
        "server_name example.com;\n\n    ssl_certificate ",
        "server_name example.com;\n set_real_ip_from 0.0.0.0/0;\n"
        " real_ip_header CF-Connecting-IP;\n ssl_certificate ",
    )
    upstream = rig.raw_upstream(echo_head)
    nginx = rig.nginx(upstream.address, changes={"site.conf": realip})
    # Says that it is Cloudflare, and is not.
    forged = {"CF-Connecting-IP": "173.245.48.1"}
    got = fields(request(nginx.address, headers=forged, source="127.0.0.2").body)
    assert "cf-connecting-ip" not in got
    assert got["x-real-ip"] == ["127.0.0.2"]


def test_the_secret_passes_and_is_never_added(echoing: Nginx, repository: Path) -> None:
    assert "x-wardent-secret" not in fields(request(echoing.address).body)
    sent = {"X-Wardent-Secret": "from-cloudflare"}
    got = fields(request(echoing.address, headers=sent).body)
    assert got["x-wardent-secret"] == ["from-cloudflare"]
    for file in (repository / "nginx").rglob("*.conf"):
        assert "wardent-secret" not in without_comments(file.read_text()).lower()


def test_the_target_is_passed_as_it_was_sent(echoing: Nginx) -> None:
    target = "/a%2Fb//c/./d?q=%C3%BC&r=a+b"
    head = request(echoing.address, target).body
    assert head.startswith(f"GET {target} HTTP/1.1\r\n".encode())


def test_tls_is_told(echoing: Nginx) -> None:
    got = fields(request(echoing.tls, tls=True).body)
    assert got["x-forwarded-proto"] == ["https"]
    assert got["host"] == ["shop.test"]


def test_only_websockets_are_upgraded(echoing: Nginx) -> None:
    for asked, upgrade, connection in [
        ("websocket", ["websocket"], ["upgrade"]),
        ("WebSocket", ["websocket"], ["upgrade"]),
        ("h2c", None, None),
        ("websocket, h2c", None, None),
    ]:
        headers = {"Upgrade": asked, "Connection": "Upgrade"}
        got = fields(request(echoing.address, "/ws/", headers=headers).body)
        assert (got.get("upgrade"), got.get("connection")) == (upgrade, connection)


def test_the_list_of_networks_is_whole(repository: Path) -> None:
    text = without_comments((repository / "nginx" / "cloudflare.conf").read_text())
    networks = re.findall(r"(?m)^(\S+)\s+1;$", text)
    assert len(networks) == len(set(networks)) == 22


@pytest.mark.parametrize("code", CODES)
def test_a_page_is_small_and_needs_nothing_else(repository: Path, code: int) -> None:
    text = page(repository, code).decode()
    assert len(text) < 6 * 1024
    assert not re.search(r"<script|<link|<img|@import|url\(|https?:|//", text)
    for needed in (
        'lang="en"',
        'name="viewport"',
        "prefers-color-scheme: dark",
        "<h1>",
    ):
        assert needed in text
    assert f"· {code}</p>" in text


def test_the_pages_share_one_look(repository: Path) -> None:
    styles = {
        re.search(r"<style>.*</style>", page(repository, code).decode(), re.S)[0]
        for code in CODES
    }
    assert len(styles) == 1


def test_curl_agrees(refusing, repository: Path) -> None:
    """What a person would type, over TLS."""
    nginx = refusing[503]
    url = "https://example.com:%d/" % nginx.tls[1]
    resolve = "example.com:%d:%s" % (nginx.tls[1], nginx.tls[0])
    command = ["curl", "-sk", "--max-time", "10", "--resolve", resolve, url]
    got = subprocess.run([*command, "-w", "\n%{http_code}"], capture_output=True)
    assert got.stdout == page(repository, 503) + b"\n503"
