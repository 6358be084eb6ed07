"""nginx → Wardent → gunicorn/Django: what goes in comes out, over every kind of hop."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig import Connection, Gunicorn, Nginx, Wardent, request, upload, wait_until
from rig.client import BLOCK

CLIENT = {"CF-Connecting-IP": "198.51.100.7"}
HOPS = ["tcp", "unix"]


@pytest.fixture(scope="module", params=HOPS)
def chain(request, module_rig, django_app: Gunicorn) -> Nginx:
    """The whole chain, its inner hops over TCP or over unix sockets."""
    unix = request.param == "unix"
    wardent = module_rig.wardent(django_app.unix if unix else django_app.address)
    return module_rig.nginx(wardent.unix if unix else wardent.address)


@pytest.fixture(scope="module")
def wardent(module_rig, django_app: Gunicorn) -> Wardent:
    return module_rig.wardent(django_app.address)


def echo(address, target: str = "/echo", **options) -> dict:
    """What Django saw."""
    options.setdefault("headers", CLIENT)
    got = request(address, target, **options)
    assert got.status == 200, got
    return json.loads(got.body)


def test_get(chain: Nginx) -> None:
    got = request(chain.address, headers=CLIENT)
    assert got.status == 200
    assert "The shop is open" in got.text


def test_get_over_tls(chain: Nginx) -> None:
    seen = echo(chain.tls, tls=True)
    assert seen["headers"]["X-Forwarded-Proto"] == "https"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_body_arrives_byte_for_byte(chain: Nginx, method: str) -> None:
    body = bytes(range(256)) * 5000
    seen = echo(chain.address, method=method, body=body)
    assert seen["method"] == method
    assert seen["length"] == len(body)
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()


def test_the_target_arrives_as_it_was_sent(chain: Nginx) -> None:
    target = "/echo//a/./b?q=%C3%BC&r=a+b"
    assert echo(chain.address, target)["target"] == target


def test_head_has_no_body(chain: Nginx) -> None:
    got = request(chain.address, method="HEAD", headers=CLIENT)
    assert (got.status, got.body) == (200, b"")


@pytest.mark.parametrize("code", [201, 204, 302, 400, 401, 404, 405, 422])
def test_answers_of_the_application_pass(chain: Nginx, code: int) -> None:
    got = request(chain.address, f"/status/{code}", headers=CLIENT)
    assert got.status == code
    if code != 204:
        assert got.text == f"Django says {code}"


def test_a_connection_is_used_again(chain: Nginx) -> None:
    connection = Connection(chain.address)
    for number in range(50):
        got = connection.ask("GET", f"/echo?{number}", CLIENT)
        assert json.loads(got.body)["target"] == f"/echo?{number}"
        assert got.headers.get("Connection") != "close"


def test_the_decision_has_an_id_that_is_also_in_nginx_log(chain: Nginx) -> None:
    got = request(chain.address, "/?find-me", headers=CLIENT)
    number = got.headers["X-Request-ID"]
    assert number
    wait_until("the id is in the log", lambda: f" id={number} " in chain.log())


def test_the_request_id_is_never_the_clients(chain: Nginx) -> None:
    seen = echo(chain.address, headers={**CLIENT, "X-Request-ID": "forged"})
    assert seen["headers"]["X-Request-Id"] not in ("forged", "")


def test_wardent_says_that_it_was_there(chain: Nginx) -> None:
    assert "wardent" in echo(chain.address)["headers"]["Via"]


def test_nothing_of_wardent_reaches_the_visitor(chain: Nginx) -> None:
    got = request(chain.address, headers=CLIENT)
    assert not [name for name in got.headers if name.lower().startswith("x-wardent")]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "streamed"])
def test_an_upload_of_many_pieces(chain: Nginx, chunked: bool) -> None:
    size = 9 * 2**20
    got = upload(chain.address, "/upload/", size, CLIENT, chunked=chunked)
    assert got.status == 200, got
    expected = hashlib.sha256(BLOCK * (size // len(BLOCK))).hexdigest()
    assert json.loads(got.body) == {"sha256": expected, "length": size}


@pytest.mark.parametrize("idle_s", ["1.0", "2.0"])
def test_gunicorns_short_keep_alive_breaks_nothing(
    wardent: Wardent, idle_s: str
) -> None:
    """gunicorn closes a connection that was idle for 2 s; Wardent must have dropped it before.

    Four at once leave four connections behind. One slow request lets the others idle for as long as it
    takes. A POST that met a closing one could not be repeated, and would be a 502.
    """

    def post(_: int) -> int:
        return request(wardent.address, "/echo", "POST", CLIENT, b"x").status

    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(post, range(8))) == [200] * 8
        assert request(wardent.address, f"/slow/{idle_s}", headers=CLIENT).status == 200
        assert list(clients.map(post, range(8))) == [200] * 8
