"""Who the client is: Cloudflare's word through nginx, and nobody else's."""

import json

import pytest
from rig import Gunicorn, Nginx, Wardent, request, wait_until

CLIENT = "198.51.100.7"
FORGED = {
    "X-Real-IP": "203.0.113.1",
    "X-Forwarded-For": "203.0.113.2, 203.0.113.3",
    "Forwarded": "for=203.0.113.4",
    "True-Client-IP": "203.0.113.5",
    "X-Client-IP": "203.0.113.6",
}


@pytest.fixture(scope="module")
def wardent(module_rig, django_app: Gunicorn) -> Wardent:
    return module_rig.wardent(django_app.address)


@pytest.fixture(scope="module")
def nginx(module_rig, wardent: Wardent) -> Nginx:
    return module_rig.nginx(wardent.address)


def seen(address, headers: dict[str, str], **options) -> dict[str, str]:
    """The headers that Django saw."""
    got = request(address, "/echo", headers=headers, **options)
    assert got.status == 200, got
    return json.loads(got.body)["headers"]


def forged_values(headers: dict[str, str]) -> list[str]:
    """Names of headers that carry anything of what the client forged."""
    return [name for name, value in headers.items() if "203.0.113." in value]


@pytest.mark.parametrize("client", [CLIENT, "2001:db8::7"])
def test_the_real_client_arrives(nginx: Nginx, client: str) -> None:
    got = seen(nginx.address, {"CF-Connecting-IP": client})
    assert got["X-Real-Ip"] == client
    assert got["X-Forwarded-For"] == client


def test_what_the_client_says_of_itself_does_not(nginx: Nginx) -> None:
    got = seen(nginx.address, {"CF-Connecting-IP": CLIENT, **FORGED})
    assert (got["X-Real-Ip"], got["X-Forwarded-For"]) == (CLIENT, CLIENT)
    assert forged_values(got) == []


def test_around_cloudflare_nobody_is_anybody(nginx: Nginx, django_app) -> None:
    forged = {"CF-Connecting-IP": CLIENT, **FORGED}
    got = request(nginx.address, "/echo?forged", headers=forged, source="127.0.0.2")
    assert got.status == 400
    # An honest request after it: once that is in Django's log, the forged one would be, too.
    request(nginx.address, "/echo?honest", headers={"CF-Connecting-IP": CLIENT})
    # Its log is written after the answer.
    wait_until("Django has logged it", lambda: "/echo?honest" in django_app.log())
    assert "/echo?forged" not in django_app.log()


def test_where_a_missing_address_is_let_in_it_stays_missing(rig, django_app) -> None:
    wardent = rig.wardent(django_app.address, config={"client_ip": {"missing": "peer"}})
    nginx = rig.nginx(wardent.address)
    forged = {"CF-Connecting-IP": CLIENT, **FORGED}
    got = seen(nginx.address, forged, source="127.0.0.2")
    assert forged_values(got) == []
    assert CLIENT not in got.values()


def test_a_stranger_at_wardents_own_door_is_its_socket_address(
    wardent: Wardent,
) -> None:
    forged = {"CF-Connecting-IP": CLIENT, **FORGED}
    got = seen(wardent.address, forged, source="127.0.0.2")
    assert (got["X-Real-Ip"], got["X-Forwarded-For"]) == ("127.0.0.2", "127.0.0.2")
    assert forged_values(got) == []
    assert CLIENT not in got.values()


def test_connection_cannot_strip_what_wardent_sets(wardent: Wardent) -> None:
    names = "close, X-Real-IP, X-Forwarded-For, CF-Connecting-IP, X-Request-ID"
    got = seen(wardent.address, {"CF-Connecting-IP": CLIENT, "Connection": names})
    assert (got["X-Real-Ip"], got["X-Forwarded-For"]) == (CLIENT, CLIENT)
    assert got["X-Request-Id"]


@pytest.mark.parametrize(
    "value",
    ["999.1.1.1", "010.0.0.1", "1.2.3.4:80", "1.2.3.4, 5.6.7.8", "nobody", "127.0.0.1"],
)
def test_a_bad_address_is_refused(nginx: Nginx, value: str) -> None:
    got = request(nginx.address, headers={"CF-Connecting-IP": value})
    assert got.status == 400


def test_one_clients_limit_is_not_anothers(rig, django_app) -> None:
    limited = {"defaults": {"limit": {"rate": "1/h", "burst": 3}}}
    wardent = rig.wardent(django_app.address, policy=limited)
    nginx = rig.nginx(wardent.address)

    def codes(client: str) -> list[int]:
        headers = {"CF-Connecting-IP": client}
        return [request(nginx.address, headers=headers).status for _ in range(5)]

    assert codes("198.51.100.1") == [200, 200, 200, 429, 429]
    assert codes("198.51.100.2") == [200, 200, 200, 429, 429]
    # One IPv6 client is a whole /64.
    assert codes("2001:db8:1:1::1") == [200, 200, 200, 429, 429]
    assert codes("2001:db8:1:1::2") == [429] * 5
    assert codes("2001:db8:1:2::1") == [200, 200, 200, 429, 429]
