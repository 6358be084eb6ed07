"""Stripe's webhooks: the real `stripe` package signs and verifies, Wardent stands between and is not noticed."""

import json
import time
from uuid import uuid4

import pytest
import stripe
from conftest import STRIPE_SECRETS
from rig import Gunicorn, Nginx, Wardent, free_port, request, wait_until

PATH = "/webhooks/stripe"
MIB = 2**20
ROUTE = {
    "name": "stripe",
    "match": {"path": PATH, "methods": ["POST"]},
    "secret": "skip",
    "bots": "skip",
    "limit": {"rate": "1000/s", "burst": 2000},
    "body": "2MiB",
}
CHECKED = {
    **ROUTE,
    "signature": {
        "scheme": "stripe",
        "secrets": [{"env": "STRIPE_FIRST"}, {"env": "STRIPE_SECOND"}],
        "tolerance": "5m",
    },
}
ENV = {"STRIPE_FIRST": STRIPE_SECRETS[0], "STRIPE_SECOND": STRIPE_SECRETS[1]}
# The secret is asked for everywhere else: Stripe does not have it.
KEY = "k" * 40


def event(number: str = "evt_1", **more: object) -> dict:
    data = {"object": {"id": "ch_1", "amount": 1999, "description": "Grüße, 東京 🧾"}}
    return {
        "id": number,
        "object": "event",
        "type": "charge.succeeded",
        "data": data,
    } | more


def padded(size: int) -> bytes:
    """An event of exactly that many bytes."""
    empty = json.dumps(event(padding="")).encode()
    return json.dumps(event(padding="x" * (size - len(empty)))).encode()


BODIES = {
    "compact": json.dumps(event(), separators=(",", ":")).encode(),
    "pretty": json.dumps(event(), indent=2).encode() + b"\n",
    "unicode": json.dumps(event(), ensure_ascii=False).encode(),
    "windows": json.dumps(event(), indent=2).replace("\n", "\r\n").encode(),
    "spaces": b'  { "id" : "evt_\\u00e9" ,\t"object":"event" }  \n\n',
    "one-mebibyte": padded(MIB),
}


def sign(body: bytes, secret: str = STRIPE_SECRETS[0], age_s: int = 0) -> str:
    """Stripe-Signature as Stripe makes it, by the package's own arithmetic."""
    seconds = int(time.time()) - age_s
    compute = stripe.WebhookSignature._compute_signature
    return f"t={seconds},v1={compute(f'{seconds}.{body.decode()}', secret)}"


def headers(signature: str | None, client: str = "198.51.100.77") -> dict[str, str]:
    found = {
        "CF-Connecting-IP": client,
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Content-Type": "application/json; charset=utf-8",
    }
    return found if signature is None else {**found, "Stripe-Signature": signature}


@pytest.fixture(scope="module", params=["signature checked", "passed on"])
def wardent(request, module_rig, django_app: Gunicorn) -> Wardent:
    directory = module_rig.directory()
    (directory / "key").write_text(KEY + "\n")
    keys = [{"id": "one", "from": {"file": str(directory / "key")}}]
    route = CHECKED if request.param == "signature checked" else ROUTE
    return module_rig.wardent(
        django_app.address,
        config={"secret": {"keys": keys}},
        policy={"routes": [route]},
        env=ENV,
    )


@pytest.fixture(scope="module", params=["site.conf", "site-buffered.conf"])
def nginx(request, module_rig, wardent: Wardent) -> Nginx:
    return module_rig.nginx(wardent.address, site=request.param)


@pytest.fixture(scope="module")
def checked(module_rig, django_app: Gunicorn) -> Wardent:
    policy = {"routes": [CHECKED]}
    return module_rig.wardent(django_app.address, policy=policy, env=ENV)


def deliver(address, body: bytes, signature: str | None, query: str = ""):
    return request(address, PATH + query, "POST", headers(signature), body)


@pytest.mark.parametrize("name", BODIES)
def test_django_verifies_what_stripe_signed(nginx: Nginx, name: str) -> None:
    got = deliver(nginx.address, BODIES[name], sign(BODIES[name]))
    assert got.status == 200, got.text
    assert json.loads(got.body)["received"].startswith("evt_")


def test_either_secret_is_good_while_one_is_rolled(nginx: Nginx) -> None:
    body = BODIES["compact"]
    old, new = (sign(body, secret) for secret in STRIPE_SECRETS)
    assert deliver(nginx.address, body, old).status == 200
    assert deliver(nginx.address, body, new).status == 200
    # Stripe sends both at once.
    both = f"{old},{new.partition(',')[2]},v0={'0' * 64}"
    assert deliver(nginx.address, body, both).status == 200


@pytest.mark.parametrize("piece", [1, 7, 8192])
def test_chunks_of_any_size(wardent: Wardent, piece: int) -> None:
    body = BODIES["unicode"]
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in pieces)
    sent = {**headers(sign(body)), "Transfer-Encoding": "chunked"}
    got = request(wardent.address, PATH, "POST", sent, chunked + b"0\r\n\r\n")
    assert got.status == 200, got.text


def test_200_deliveries_in_a_row_all_arrive(nginx: Nginx) -> None:
    body = BODIES["compact"]
    for _ in range(200):
        assert deliver(nginx.address, body, sign(body)).status == 200


def test_beyond_the_routes_bound_it_is_413(nginx: Nginx) -> None:
    body = padded(2 * MIB + 1)
    assert deliver(nginx.address, body, sign(body)).status == 413


@pytest.mark.parametrize(
    "forge",
    [
        lambda body: None,
        lambda body: "",
        lambda body: "t=,v1=",
        lambda body: f"t={int(time.time())}",
        lambda body: sign(body, "whsec_" + "c" * 32),
        lambda body: sign(body + b" "),
        lambda body: sign(body, age_s=310),
        lambda body: sign(body).replace("v1=", "v0="),
        lambda body: sign(body, age_s=20).replace("t=", f"t={int(time.time())},x="),
    ],
    ids=["none", "empty", "blank", "bare", "secret", "body", "stale", "v0", "time"],
)
def test_a_forged_or_stale_one_never_reaches_django(
    checked: Wardent, django_app: Gunicorn, forge
) -> None:
    body = BODIES["compact"]
    forged, good = f"?forged={uuid4()}", f"?good={uuid4()}"
    got = deliver(checked.address, body, forge(body), forged)
    assert (got.status, got.body) == (403, b"")
    assert got.headers["X-Wardent-Reason"] == "bad_signature"
    assert deliver(checked.address, body, sign(body), good).status == 200
    # gunicorn writes its line after the answer.
    wait_until("Django has logged the good one", lambda: good in django_app.log())
    assert forged not in django_app.log()


def test_an_old_one_within_the_tolerance_passes(checked: Wardent) -> None:
    body = BODIES["compact"]
    assert deliver(checked.address, body, sign(body, age_s=280)).status == 200


def test_through_nginx_a_refusal_stays_raw(module_rig, checked: Wardent) -> None:
    nginx = module_rig.nginx(checked.address)
    got = deliver(nginx.address, BODIES["compact"], "t=1,v1=00")
    assert (got.status, got.body) == (403, b"")


def test_the_route_is_not_a_way_around_the_secret(wardent: Wardent) -> None:
    sent = {"CF-Connecting-IP": "198.51.100.7"}
    assert request(wardent.address, "/", headers=sent).status == 403
    got = request(wardent.address, "/admin/..%2fwebhooks/stripe", "POST", sent, b"{}")
    assert got.status in (400, 403)
    got = request(wardent.address, "/admin/../webhooks/stripe", "POST", sent, b"{}")
    assert got.status == 400


@pytest.mark.parametrize("route", [ROUTE, CHECKED], ids=["passed on", "checked"])
def test_with_the_application_down_it_is_never_200(rig, route: dict) -> None:
    down = ("127.0.0.1", free_port())
    wardent = rig.wardent(down, policy={"routes": [route]}, env=ENV)
    careless = {"site.conf": ("snippets/pages.conf;", "snippets/pages-200.conf;")}
    body = BODIES["compact"]
    for nginx in (
        rig.nginx(wardent.address),
        rig.nginx(wardent.address, changes=careless),
    ):
        for _ in range(5):
            assert deliver(nginx.address, body, sign(body)).status in (502, 503)
    wardent.stop()
    assert deliver(nginx.address, body, sign(body)).status == 502
