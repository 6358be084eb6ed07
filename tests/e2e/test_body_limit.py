"""A 413 always arrives whole: as Wardent's raw answer, and through nginx as its page. Never a 502."""

from itertools import product
from pathlib import Path

import pytest
from rig import Connection, Nginx, Wardent, request, upload, wait_until

MIB = 2**20
TOO_MUCH = 8 * MIB
LOOPS = 10
CLIENT = {"CF-Connecting-IP": "198.51.100.7"}
# No ban for it, and nothing else in the way.
POLICY = {"defaults": {"body": "1MiB"}, "bans": {"points": {"body_too_large": 0}}}


@pytest.fixture(scope="module")
def wardent(module_rig, django_app) -> Wardent:
    return module_rig.wardent(django_app.address, policy=POLICY)


@pytest.fixture(scope="module")
def page(repository: Path) -> bytes:
    return (repository / "nginx" / "pages" / "413.html").read_bytes()


CHAINS = list(product(("tcp", "unix"), ("streamed", "buffered"), ("kept", "closed")))


@pytest.fixture(scope="module", params=CHAINS, ids="-".join)
def nginx(request, module_rig, wardent: Wardent) -> Nginx:
    """Hop to Wardent over TCP or unix, request buffering off and on, connections kept or not."""
    hop, buffering, keeping = request.param
    nginx = module_rig.nginx(
        wardent.unix if hop == "unix" else wardent.address,
        site="site.conf" if buffering == "streamed" else "site-buffered.conf",
        keepalive=keeping == "kept",
    )
    yield nginx
    # nginx notices every write that Wardent does not take.
    for complaint in ("Broken pipe", "Connection reset by peer", "prematurely closed"):
        blamed = [line for line in nginx.errors().splitlines() if complaint in line]
        assert not [line for line in blamed if "upstream" in line]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "counted"])
@pytest.mark.parametrize("go_on", [False, True], ids=["stops", "goes-on"])
class TestThroughNginx:
    def test_a_person_gets_the_page(
        self, nginx: Nginx, page: bytes, chunked: bool, go_on: bool
    ) -> None:
        for _ in range(LOOPS):
            got = upload(nginx.address, "/upload/", TOO_MUCH, CLIENT, chunked, go_on)
            assert (got.status, got.body) == (413, page)

    def test_a_program_gets_the_raw_answer(
        self, nginx: Nginx, chunked: bool, go_on: bool
    ) -> None:
        for _ in range(3):
            got = upload(nginx.address, "/api/echo", TOO_MUCH, CLIENT, chunked, go_on)
            assert (got.status, got.body) == (413, b"")


@pytest.mark.parametrize("hop", ["tcp", "unix"])
def test_a_client_that_sends_100_mb_into_it(
    module_rig, wardent: Wardent, page: bytes, hop: str
) -> None:
    nginx = module_rig.nginx(wardent.unix if hop == "unix" else wardent.address)
    for chunked in (False, True):
        got = upload(nginx.address, "/upload/", 100 * MIB, CLIENT, chunked, go_on=True)
        assert (got.status, got.body) == (413, page)


@pytest.mark.parametrize("hop", ["tcp", "unix"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "counted"])
@pytest.mark.parametrize("go_on", [False, True], ids=["stops", "goes-on"])
class TestDirectly:
    def test_the_answer_is_raw_and_whole(
        self, wardent: Wardent, hop: str, chunked: bool, go_on: bool
    ) -> None:
        address = wardent.unix if hop == "unix" else wardent.address
        for _ in range(LOOPS):
            got = upload(address, "/upload/", TOO_MUCH, CLIENT, chunked, go_on)
            assert (got.status, got.body) == (413, b"")
            assert got.headers["Content-Length"] == "0"
            assert got.headers["X-Wardent-Reason"] == "body_too_large"
            assert got.headers["X-Request-ID"]

    def test_even_when_100_mb_follow(
        self, wardent: Wardent, hop: str, chunked: bool, go_on: bool
    ) -> None:
        address = wardent.unix if hop == "unix" else wardent.address
        got = upload(address, "/upload/", 100 * MIB, CLIENT, chunked, go_on)
        assert (got.status, got.body) == (413, b"")


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "counted"])
def test_exactly_at_the_bound_it_passes(wardent: Wardent, chunked: bool) -> None:
    assert upload(wardent.address, "/upload/", MIB, CLIENT, chunked).status == 200
    assert upload(wardent.address, "/upload/", MIB + 1, CLIENT, chunked).status == 413


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT"])
def test_the_bound_is_for_every_method(wardent: Wardent, method: str) -> None:
    headers = {**CLIENT, "Content-Length": str(MIB + 1)}
    assert request(wardent.address, "/echo", method, headers).status == 413


def test_a_declared_one_never_reaches_the_application(
    wardent: Wardent, django_app
) -> None:
    upload(wardent.address, "/upload/?too-large", TOO_MUCH, CLIENT)
    request(wardent.address, "/echo?after-it", headers=CLIENT)
    # Its log is written after the answer.
    wait_until("Django has logged it", lambda: "/echo?after-it" in django_app.log())
    assert "too-large" not in django_app.log()


def test_a_slightly_larger_one_does_not_cost_the_connection(wardent: Wardent) -> None:
    """Few bytes left: they are read, and the connection goes on, if Wardent says it does."""
    connection = Connection(wardent.address)
    got = connection.ask("POST", "/upload/", CLIENT, b"x" * (MIB + 1))
    assert got.status == 413
    if got.headers.get("Connection") != "close":
        assert connection.ask("GET", "/", CLIENT).status == 200
