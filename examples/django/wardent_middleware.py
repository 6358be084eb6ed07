"""Refuses what did not come through Wardent.

Copy this file into your project, and into settings.py:

    MIDDLEWARE = ["wardent_middleware.WardentMiddleware", …]      # first
    WARDENT_KEYS = {"app": "/etc/shop/wardent-key"}               # key id: file
    WARDENT_OPEN_PATHS = ["/healthz"]                             # optional: answered without

Wardent signs every request it passes on (`secret.upstream` in wardent.yaml):

    X-Wardent-Secret: v1=<key id>.<unix seconds>.<hex HMAC-SHA256>

over version, time, method, host, target and client address, one a line. So a header that somebody saw
works neither later, nor for another path, nor for another client. docs/django.md tells more.
"""

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseForbidden,
)

HEADER = "HTTP_X_WARDENT_SECRET"
MAX_AGE_S = 60
KEY_BYTES_MIN = 32
FORM = re.compile(r"v1=([A-Za-z0-9_-]{1,64})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)

log = logging.getLogger(__name__)


class KeyFile:
    """A key in a file, read again when the file changes, so that a rotation needs no restart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: tuple[int, int, int] | None = None
        self.key = b""

    def read(self) -> bytes:
        """The key. A file that is gone or too short keeps the key read before, and says so once."""
        try:
            stat = self.path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self.seen:
                key = self.path.read_bytes().removesuffix(b"\n")
                if len(key) >= KEY_BYTES_MIN:
                    self.key = key
                else:
                    log.error(
                        "%s: needs at least %d bytes, has %d: kept the key read before",
                        self.path,
                        KEY_BYTES_MIN,
                        len(key),
                    )
                self.seen = seen
        except OSError as error:
            if self.seen is not None:
                log.error("%s: kept the key read before", error)
            self.seen = None
        return self.key


def message(seconds: str, method: str, host: str, target: str, client_ip: str) -> bytes:
    """What is signed."""
    return "\n".join(("v1", seconds, method, host, target, client_ip)).encode("latin-1")


def targets_of(request: HttpRequest) -> list[str]:
    """The request's target as it arrived: Django's `path` is decoded, and no longer what was signed."""
    if scope := getattr(request, "scope", None):
        path = scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        # ASGI does not tell an empty query (`/path?`) from none.
        return [f"{path}?{query}"] if query else [path, f"{path}?"]
    # gunicorn's name, then uWSGI's and mod_wsgi's.
    return [request.META.get("RAW_URI") or request.META.get("REQUEST_URI", "")]


def fault(request: HttpRequest, keys: dict[str, KeyFile], now: float) -> str | None:
    """Why this request did not come through Wardent; None if it did."""
    # Two headers of that name arrive joined by a comma, and do not match.
    match = FORM.fullmatch(request.META.get(HEADER, ""))
    if match is None:
        return "no signature"
    key_id, seconds, given = match.groups()
    if key_id not in keys or not (key := keys[key_id].read()):
        return "unknown key id"
    if abs(now - int(seconds)) > MAX_AGE_S:
        return "stale signature"
    for target in targets_of(request):
        signed = message(
            seconds,
            request.method or "",
            request.META.get("HTTP_HOST", ""),
            target,
            request.META.get("HTTP_X_REAL_IP", ""),
        )
        expected = hmac.new(key, signed, hashlib.sha256).hexdigest()
        # Constant time: how long it takes must not tell how much was right.
        if hmac.compare_digest(expected, given):
            return None
    return "wrong signature"


class WardentMiddleware:
    """Answers 403 to whatever does not carry Wardent's fresh signature. Works under WSGI and ASGI."""

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[
            [HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]
        ],
    ) -> None:
        self.get_response = get_response
        self.open_paths = frozenset(getattr(settings, "WARDENT_OPEN_PATHS", ()))
        self.keys = {
            key_id: KeyFile(Path(path))
            for key_id, path in getattr(settings, "WARDENT_KEYS", {}).items()
        }
        # Without a key nothing could be proven: better not to start than to refuse, or admit, everybody.
        if not self.keys:
            raise ImproperlyConfigured(
                "WARDENT_KEYS: name at least one key id and its file"
            )
        for key_id, file in self.keys.items():
            if not file.read():
                raise ImproperlyConfigured(
                    f"WARDENT_KEYS: {key_id}: {file.path} must be readable and hold {KEY_BYTES_MIN} bytes or more"
                )
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if request.path not in self.open_paths and (
            reason := fault(request, self.keys, time.time())
        ):
            log.warning("refused %s %r: %s", request.method, request.path, reason)
            return refuse_later() if self.is_async else refuse()
        return self.get_response(request)


def refuse() -> HttpResponse:
    """The same for every reason: the caller learns nothing from it, the log has it."""
    return HttpResponseForbidden("403: not through Wardent", content_type="text/plain")


async def refuse_later() -> HttpResponse:
    """The refusal for ASGI, where an answer is awaited."""
    return refuse()
