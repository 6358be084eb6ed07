"""examples/django/wardent_middleware.py: what carries Wardent's fresh signature passes, nothing else does.

Without a server: one request after another is handed to the middleware itself.
"""

import asyncio
import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"])
    django.setup()

from wardent_middleware import WardentMiddleware  # noqa: E402  (needs settings)

KEY = b"k" * 32
OTHER_KEY = b"o" * 40
TARGET = "/a%2Fb//c?q=%C3%BC&r"


def signature(
    key: bytes = KEY,
    key_id: str = "app",
    seconds: int | None = None,
    method: str = "GET",
    host: str = "shop.test",
    target: str = TARGET,
    client_ip: str = "198.51.100.7",
) -> str:
    """Wardent's side, written from the contract and not from the middleware."""
    seconds = int(time.time()) if seconds is None else seconds
    text = f"v1\n{seconds}\n{method}\n{host}\n{target}\n{client_ip}"
    mac = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return f"v1={key_id}.{seconds}.{mac}"


def request(header: str | None, **changes: Any) -> HttpRequest:
    """A request as gunicorn makes it, with that X-Wardent-Secret."""
    meta = {
        "HTTP_HOST": "shop.test",
        "HTTP_X_REAL_IP": "198.51.100.7",
        "RAW_URI": TARGET,
        **changes,
    }
    if header is not None:
        meta["HTTP_X_WARDENT_SECRET"] = header
    meta = {name: value for name, value in meta.items() if value is not None}
    return RequestFactory().get("/a/b//c", **meta)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    return path


@pytest.fixture
def status(key_file: Path):
    """Sends a request through the middleware and tells the answer's code."""
    with override_settings(
        WARDENT_KEYS={"app": str(key_file)}, WARDENT_OPEN_PATHS=["/healthz"]
    ):
        middleware = WardentMiddleware(lambda request: HttpResponse("ok"))
    return lambda request: middleware(request).status_code


def test_a_fresh_signature_passes(status) -> None:
    assert status(request(signature())) == 200


def test_no_header_is_refused(status) -> None:
    assert status(request(None)) == 403


@pytest.mark.parametrize(
    "header",
    [
        "",
        "k" * 32,
        "v1=",
        "v1=app.1",
        "v1=app..",
        "v2=app.1.00",
        "v1=app.1." + "g" * 64,
        "v1=app.1." + "0" * 63,
        "v1=app.99999999999999999999." + "0" * 64,
        "v1=app.1." + "\u0660" * 64,
    ],
)
def test_a_malformed_header_is_refused(status, header: str) -> None:
    assert status(request(header)) == 403


def test_the_key_itself_is_refused(status) -> None:
    assert status(request(KEY.decode())) == 403


def test_two_headers_are_refused(status) -> None:
    # Under WSGI two of a name arrive joined.
    good = signature()
    assert status(request(f"{good},{good}")) == 403


@pytest.mark.parametrize(
    "age_s,expected", [(58, 200), (-58, 200), (63, 403), (-63, 403)]
)
def test_a_signature_lives_for_a_minute_either_way(
    status, age_s: int, expected: int
) -> None:
    assert status(request(signature(seconds=int(time.time()) - age_s))) == expected


@pytest.mark.parametrize(
    "signed",
    [
        {"method": "POST"},
        {"host": "other.test"},
        {"target": "/a/b//c?q=%C3%BC&r"},
        {"target": TARGET + "x"},
        {"client_ip": "198.51.100.8"},
        {"client_ip": ""},
        {"key": OTHER_KEY},
        {"key_id": "unknown"},
    ],
)
def test_a_signature_for_something_else_is_refused(status, signed: dict) -> None:
    assert status(request(signature(**signed))) == 403


def test_a_request_without_a_known_client_is_signed_with_an_empty_address(
    status,
) -> None:
    without = {"HTTP_X_REAL_IP": None}
    assert status(request(signature(client_ip=""), **without)) == 200
    assert status(request(signature(), **without)) == 403


def test_the_target_is_found_under_uwsgi_too(status) -> None:
    uwsgi = {"RAW_URI": None, "REQUEST_URI": TARGET}
    assert status(request(signature(), **uwsgi)) == 200


def test_open_paths_need_no_signature(status) -> None:
    assert status(RequestFactory().get("/healthz")) == 200
    assert status(RequestFactory().get("/healthz/")) == 403


def test_several_keys_are_good_at_once(key_file: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.write_bytes(OTHER_KEY)
    with override_settings(WARDENT_KEYS={"app": str(key_file), "app2": str(new)}):
        middleware = WardentMiddleware(lambda request: HttpResponse("ok"))
    for header, expected in [
        (signature(), 200),
        (signature(key=OTHER_KEY, key_id="app2"), 200),
        (signature(key=OTHER_KEY, key_id="app"), 403),
    ]:
        assert middleware(request(header)).status_code == expected


def test_a_changed_file_is_read_again(status, key_file: Path) -> None:
    assert status(request(signature())) == 200
    new = key_file.with_name("new")
    new.write_bytes(OTHER_KEY + b"\n")
    os.replace(new, key_file)
    assert status(request(signature())) == 403
    assert status(request(signature(key=OTHER_KEY))) == 200


@pytest.mark.parametrize("change", ["short", "gone"])
def test_a_short_or_missing_file_keeps_the_key_and_says_so(
    status, key_file: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    assert status(request(signature())) == 200
    if change == "short":
        key_file.write_bytes(b"short\n")
    else:
        key_file.unlink()
    for _ in range(3):
        assert status(request(signature())) == 200
    said = [record for record in caplog.records if "kept the key" in record.message]
    assert len(said) == 1
    assert str(key_file) in said[0].message


def test_refusals_are_logged_without_the_secret(
    status, caplog: pytest.LogCaptureFixture
) -> None:
    header = signature(key=OTHER_KEY)
    assert status(request(header)) == 403
    assert "wrong signature" in caplog.text
    assert header.rsplit(".", 1)[1] not in caplog.text


def test_it_does_not_start_without_a_key(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"too short\n")
    for keys in ({}, {"app": str(tmp_path / "missing")}, {"app": str(short)}):
        with (
            override_settings(WARDENT_KEYS=keys),
            pytest.raises(ImproperlyConfigured, match="WARDENT_KEYS"),
        ):
            WardentMiddleware(lambda request: HttpResponse("ok"))


@pytest.mark.parametrize("target", ["/a%2Fb//c?q=%C3%BC&r", "/a", "/a?"])
def test_it_works_under_asgi(key_file: Path, target: str) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok")

    with override_settings(WARDENT_KEYS={"app": str(key_file)}):
        middleware = WardentMiddleware(view)

    async def status(header: str) -> int:
        request = AsyncRequestFactory().get("/a")
        path, _, query = target.partition("?")
        request.scope["raw_path"] = path.encode()
        request.scope["query_string"] = query.encode()
        request.META["HTTP_HOST"] = "shop.test"
        request.META["HTTP_X_REAL_IP"] = "198.51.100.7"
        request.META["HTTP_X_WARDENT_SECRET"] = header
        return (await middleware(request)).status_code

    assert asyncio.run(status(signature(target=target))) == 200
    assert asyncio.run(status(signature(target="/b"))) == 403
